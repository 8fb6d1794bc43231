//! What this node tells clients about itself.
//!
//! Spec: Client-Server API, "API Versions", "Well-known URIs" and "Capabilities negotiation".

use messagehub_protocol::rules;
use ruma::api::client::discovery::get_capabilities::v3::{
    Capabilities, ProfileFieldsCapability, RoomVersionStability, RoomVersionsCapability,
    ThirdPartyIdChangesCapability,
};

use crate::Homeserver;

/// The versions of the Client-Server API whose operations work here. Later ones promise what
/// is not built, and clients switch features by this list.
pub const VERSIONS: [&str; 11] =
    ["v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11"];

/// The capabilities of this node.
pub fn list(hs: &Homeserver) -> Capabilities {
    let available = rules::list_supported()
        .map(|version| (version.clone(), RoomVersionStability::Stable))
        .collect();
    let mut capabilities = Capabilities::new();
    capabilities.room_versions =
        RoomVersionsCapability::new(hs.limits.default_room_version.clone(), available);
    capabilities.thirdparty_id_changes = ThirdPartyIdChangesCapability::new(false);
    // Later than the versions above, so it is said.
    capabilities.profile_fields = Some(ProfileFieldsCapability::new(true));
    capabilities
}

/// The base URL that clients are told: the configured one, else the address at which this
/// client found us. Clients move to whatever stands there, so nothing else may.
pub fn base_url(hs: &Homeserver, host: Option<&str>) -> Option<String> {
    if let Some(configured) = &hs.limits.public_base_url {
        return Some(configured.clone());
    }
    let host = host?;
    let is_host = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    is_host.then(|| format!("http://{host}"))
}
