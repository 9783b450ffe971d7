//! A city of any number of sites, the same each time: ten districts of ten streets, ten communities in each street.
//!
//! Of a hundred sites one is of the city itself, four are of districts, fifteen of streets, and eighty of communities.

use std::fmt::Write as _;

pub const ROOT: &str = "C";
pub const DISTRICTS: u32 = 10;
/// In all.
pub const STREETS: u32 = 100;
const COMMUNITIES: u32 = 1000;

/// A site's id by its number.
pub fn site(n: u32) -> String {
    format!("S{n:06}")
}

pub fn district(n: u32) -> String {
    format!("D{:02}", n % DISTRICTS)
}

pub fn street(n: u32) -> String {
    format!("T{:02}", n % STREETS)
}

/// The word for a site's tier.
pub fn tier(n: u32) -> &'static str {
    match n % 100 {
        0 => "city",
        1..=4 => "district",
        5..=19 => "street",
        _ => "community",
    }
}

fn unit_of(n: u32) -> String {
    // The hundreds decide, so that the tiers are spread over the whole city.
    let place = n / 100 + n % 100;
    match tier(n) {
        "city" => ROOT.to_owned(),
        "district" => district(place),
        "street" => street(place),
        _ => format!("M{:03}", place % COMMUNITIES),
    }
}

/// The file to import.
pub fn csv(sites: u32) -> Vec<u8> {
    let mut text =
        "external_id,kind,tier,parent,name_zh,name_en,lat,lon,access,phase\nC,unit,city,,市,City,30.5,114.3,,existing\n"
            .to_owned();
    let mut unit = |id: &str, tier: &str, parent: &str| {
        let _ = writeln!(text, "{id},unit,{tier},{parent},{id},{id},30.5,114.3,,existing");
    };
    for n in 0..DISTRICTS {
        unit(&district(n), "district", ROOT);
    }
    for n in 0..STREETS {
        unit(&street(n), "street", &district(n / 10));
    }
    for n in 0..COMMUNITIES {
        unit(&format!("M{n:03}"), "community", &street(n / 10));
    }
    for n in 0..sites {
        let (id, tier, unit) = (site(n), tier(n), unit_of(n));
        let _ = writeln!(text, "{id},site,{tier},{unit},站{n},{n},30.5,114.3,4g,new");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_line_for_each_unit_and_site_and_fits_an_import() {
        let file = String::from_utf8(csv(1000)).expect("text");
        assert_eq!(
            file.lines().count() as u32,
            1 + 1 + DISTRICTS + STREETS + COMMUNITIES + 1000
        );
        assert!(file.contains("\nS000100,site,city,C,"), "{file}");
        assert!(csv(100_000).len() < 8 << 20, "the limit of an import");
    }

    #[test]
    fn tiers_are_as_many_as_told() {
        let of = |word| (0..1000).filter(|&n| tier(n) == word).count();
        assert_eq!(
            ["city", "district", "street", "community"].map(of),
            [10, 40, 150, 800]
        );
    }
}
