//! The demonstration tree, and which of its sites get an agent.

/// The tree of the real case with made-up community names: 140 sites.
pub const TREE: &str = include_str!("../../../data/eastlake.csv");
/// The unit over whose subtree the demonstration's account commands.
pub const ROOT: &str = "WH";

/// Of each dozen: how many sites of each tier, while there are any.
const DOZEN: [(&str, usize); 4] = [("city", 1), ("district", 2), ("street", 3), ("community", 6)];

/// `count` sites of the tree, spread over the tiers, always the same; all if there are fewer.
pub fn choose(count: usize) -> Vec<&'static str> {
    let mut tiers: Vec<_> = DOZEN
        .iter()
        .map(|(name, share)| (sites_of(name), *share))
        .collect();
    let mut chosen = Vec::new();
    while chosen.len() < count && tiers.iter().any(|(sites, _)| !sites.is_empty()) {
        for (sites, share) in &mut tiers {
            let take = (*share).min(sites.len()).min(count - chosen.len());
            chosen.extend(sites.drain(..take));
        }
    }
    chosen
}

/// In the order of the file, which goes round the streets.
fn sites_of(tier: &str) -> Vec<&'static str> {
    TREE.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split(',');
            let id = fields.next()?;
            (fields.next()? == "site" && fields.next()? == tier).then_some(id)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn counts(count: usize) -> [usize; 4] {
        let chosen = choose(count);
        assert_eq!(
            chosen.iter().collect::<BTreeSet<_>>().len(),
            chosen.len(),
            "no site twice"
        );
        DOZEN.map(|(name, _)| {
            let all = sites_of(name);
            chosen.iter().filter(|site| all.contains(site)).count()
        })
    }

    #[test]
    fn a_dozen_has_all_tiers() {
        assert_eq!(counts(12), [1, 2, 3, 6]);
    }

    #[test]
    fn every_number_of_sites_can_be_had_up_to_the_whole_tree() {
        for count in 1..=140 {
            assert_eq!(counts(count).iter().sum::<usize>(), count);
        }
        assert_eq!(counts(140), [2, 8, 24, 106]);
        assert_eq!(choose(1000).len(), 140);
    }
}
