//! Which regions belong together: a regional endpoint's identity counts in its network's region, and for Azure Storage in
//! the paired one (Azure, "Virtual network service endpoints", "Azure paired regions").

/// Pairs of regions. Pairs that hold in one direction only have the region that looks for its pair first.
const PAIRS: [(&str, &str, Direction); 30] = [
    ("eastus", "westus", Direction::Both),
    ("eastus2", "centralus", Direction::Both),
    ("northcentralus", "southcentralus", Direction::Both),
    ("westus2", "westcentralus", Direction::Both),
    ("westus3", "eastus", Direction::One),
    ("canadacentral", "canadaeast", Direction::Both),
    ("brazilsouth", "southcentralus", Direction::One),
    ("brazilsoutheast", "brazilsouth", Direction::One),
    ("northeurope", "westeurope", Direction::Both),
    ("uksouth", "ukwest", Direction::Both),
    ("francecentral", "francesouth", Direction::Both),
    ("germanywestcentral", "germanynorth", Direction::Both),
    ("norwayeast", "norwaywest", Direction::Both),
    ("swedencentral", "swedensouth", Direction::Both),
    ("switzerlandnorth", "switzerlandwest", Direction::Both),
    ("eastasia", "southeastasia", Direction::Both),
    ("japaneast", "japanwest", Direction::Both),
    ("koreacentral", "koreasouth", Direction::Both),
    ("australiaeast", "australiasoutheast", Direction::Both),
    ("australiacentral", "australiacentral2", Direction::Both),
    ("centralindia", "southindia", Direction::Both),
    ("westindia", "southindia", Direction::One),
    ("jioindiacentral", "jioindiawest", Direction::Both),
    ("southafricanorth", "southafricawest", Direction::Both),
    ("uaenorth", "uaecentral", Direction::Both),
    ("chinanorth", "chinaeast", Direction::Both),
    ("chinanorth2", "chinaeast2", Direction::Both),
    ("chinanorth3", "chinaeast3", Direction::Both),
    ("usgovvirginia", "usgovtexas", Direction::Both),
    ("usgovarizona", "usgovtexas", Direction::One),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Both,
    One,
}

/// The region that a region is paired with; none for a region without a pair, and for one that is not known here.
pub(crate) fn paired(region: &str) -> Option<&'static str> {
    PAIRS.iter().find_map(|(one, other, direction)| {
        if *one == region {
            return Some(*other);
        }
        (*direction == Direction::Both && *other == region).then_some(*one)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_hold_in_both_directions_but_for_those_that_do_not() {
        assert_eq!((paired("westeurope"), paired("northeurope")), (Some("northeurope"), Some("westeurope")));
        assert_eq!((paired("westus3"), paired("eastus")), (Some("eastus"), Some("westus")));
        assert_eq!((paired("brazilsouth"), paired("southcentralus")), (Some("southcentralus"), Some("northcentralus")));
        assert_eq!(paired("italynorth"), None);
    }
}
