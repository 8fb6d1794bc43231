//! Room versions as data.
//!
//! A version is looked up once, here; everything else reads fields of the rules. Version 1 is
//! absent: its state resolution algorithm exists nowhere in our stack (design D5).

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

/// The version of a room whose creator asked for none.
pub const DEFAULT_ROOM_VERSION: RoomVersionId = RoomVersionId::V12;

static SUPPORTED: [(RoomVersionId, RoomVersionRules); 11] = [
    (RoomVersionId::V2, RoomVersionRules::V2),
    (RoomVersionId::V3, RoomVersionRules::V3),
    (RoomVersionId::V4, RoomVersionRules::V4),
    (RoomVersionId::V5, RoomVersionRules::V5),
    (RoomVersionId::V6, RoomVersionRules::V6),
    (RoomVersionId::V7, RoomVersionRules::V7),
    (RoomVersionId::V8, RoomVersionRules::V8),
    (RoomVersionId::V9, RoomVersionRules::V9),
    (RoomVersionId::V10, RoomVersionRules::V10),
    (RoomVersionId::V11, RoomVersionRules::V11),
    (RoomVersionId::V12, RoomVersionRules::V12),
];

/// The rules of a room version, `None` for a version this server does not take part in.
///
/// Spec: Room Versions, "Complete list of room versions".
pub fn rules_of(version: &RoomVersionId) -> Option<&'static RoomVersionRules> {
    SUPPORTED.iter().find(|(supported, _)| supported == version).map(|(_, rules)| rules)
}

/// Every room version this server takes part in, oldest first.
pub fn list_supported() -> impl Iterator<Item = &'static RoomVersionId> {
    SUPPORTED.iter().map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_two_to_twelve_are_supported_and_no_other() {
        let names: Vec<_> = list_supported().map(RoomVersionId::as_str).collect();
        assert_eq!(names, ["2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]);
        for (version, expected) in
            [("1", false), ("2", true), ("12", true), ("13", false), ("org.example.x", false)]
        {
            let version = RoomVersionId::try_from(version).unwrap();
            assert_eq!(rules_of(&version).is_some(), expected, "{version}");
        }
        assert!(rules_of(&DEFAULT_ROOM_VERSION).is_some());
    }

    #[test]
    fn every_supported_version_has_the_second_state_resolution() {
        for version in list_supported() {
            assert!(rules_of(version).unwrap().state_res.v2_rules().is_some(), "{version}");
        }
    }
}
