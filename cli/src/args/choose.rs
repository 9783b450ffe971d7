//! Which sites, and in which meeting: options that many commands share.

use clap::Args;
use muster_proto::command::v1::{Selector, Tier};

use crate::failure::Failure;

/// Tiers and tags narrow the subtrees where subtrees are given, and stand alone where not.
#[derive(Args, Default)]
pub struct Choose {
    /// All sites of the unit and of what is under it; may be repeated
    #[arg(long, value_name = "UNIT")]
    pub subtree: Vec<String>,
    /// All sites of the tier: city, district, street or community; may be repeated
    #[arg(long, value_name = "TIER", value_parser = parse_tier)]
    pub tier: Vec<Tier>,
    /// The site; may be repeated
    #[arg(long, value_name = "SITE")]
    pub site: Vec<String>,
    /// All sites with the tag; may be repeated
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Not the sites of this unit and of what is under it; may be repeated
    #[arg(long, value_name = "UNIT")]
    pub exclude_subtree: Vec<String>,
    /// Not this site; may be repeated
    #[arg(long, value_name = "SITE")]
    pub exclude_site: Vec<String>,
    /// All sites that the account may convene
    #[arg(long, conflicts_with_all = ["subtree", "tier", "site", "tag"])]
    pub all: bool,
}

impl Choose {
    /// What is chosen; an exclusion alone chooses nobody.
    pub fn selector(&self) -> Result<Selector, Failure> {
        self.selector_or_none().ok_or_else(|| {
            Failure::Usage("nobody is chosen: give --subtree, --tier, --site or --tag, or --all".to_owned())
        })
    }

    pub fn selector_or_none(&self) -> Option<Selector> {
        let tiers = if self.all {
            vec![Tier::City, Tier::District, Tier::Street, Tier::Community]
        } else {
            self.tier.clone()
        };
        let empty =
            self.subtree.is_empty() && tiers.is_empty() && self.site.is_empty() && self.tag.is_empty();
        (!empty).then(|| Selector {
            subtrees: self.subtree.clone(),
            tiers: tiers.into_iter().map(i32::from).collect(),
            sites: self.site.clone(),
            tags: self.tag.clone(),
            exclude_subtrees: self.exclude_subtree.clone(),
            exclude_sites: self.exclude_site.clone(),
        })
    }
}

/// The meeting that a verb is for.
#[derive(Args, Default)]
pub struct Which {
    /// Id of the meeting; not needed where exactly one is live
    #[arg(short, long, env = "MUSTER_MEETING", value_name = "ID")]
    pub meeting: Option<String>,
}

fn parse_tier(text: &str) -> Result<Tier, String> {
    match text {
        "city" => Ok(Tier::City),
        "district" => Ok(Tier::District),
        "street" => Ok(Tier::Street),
        "community" => Ok(Tier::Community),
        _ => Err("expected city, district, street or community".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusion_alone_chooses_nobody() {
        let choose = Choose {
            exclude_site: vec!["b".to_owned()],
            ..Choose::default()
        };
        assert!(matches!(choose.selector(), Err(Failure::Usage(_))));
    }

    #[test]
    fn all_means_every_tier_of_the_callers_tree() {
        let choose = Choose {
            all: true,
            exclude_site: vec!["b".to_owned()],
            ..Choose::default()
        };
        let selector = choose.selector().expect("a valid choice");
        assert_eq!(selector.tiers, [1, 2, 3, 4]);
        assert!(selector.subtrees.is_empty());
        assert_eq!(selector.exclude_sites, ["b"]);
    }
}
