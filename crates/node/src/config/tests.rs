use std::path::Path;

use super::*;

fn from_file(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    Config::load(&ConfigFile::Named(&path), &[], &[])
}

fn error(text: &str) -> String {
    from_file(text).unwrap_err().to_string()
}

#[test]
fn everything_has_a_default() {
    let absent = ConfigFile::Usual(Path::new("/nonexistent/config.json"));
    assert_eq!(Config::load(&absent, &[], &[]).unwrap(), Config::default());
}

#[test]
fn a_named_file_must_be_there() {
    let absent = ConfigFile::Named(Path::new("/nonexistent/config.json"));
    let error = Config::load(&absent, &[], &[]).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/config.json: cannot be read"), "{error}");
}

#[test]
fn every_key_is_read() {
    let config = from_file(
        r#"{"listenAddress": "127.0.0.1:1", "admin.listenAddress": "127.0.0.1:2",
            "libp2p.listenAddresses": ["/ip4/127.0.0.1/tcp/3"], "libp2p.mdns": false,
            "libp2p.dht.bootstrapPeers": ["/ip4/127.0.0.1/tcp/4/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"],
            "libp2p.privateNetworkSecret": "secret", "libp2p.relayService": "anyone",
            "libp2p.staticRelays": ["/dns4/relay.example.org/tcp/4/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"],
            "libp2p.upnp": false,
            "registration": "token:abcdefgh", "discoverable": false, "defaultRoomVersion": "11",
            "rateLimits": null, "maxUploadBytes": 5, "firstUser": "anna", "log.format": "json",
            "log.level": "debug"}"#,
    )
    .unwrap();
    assert_eq!(
        config,
        Config {
            listen: ListenAddress::Asked("127.0.0.1:1".parse().unwrap()),
            admin_listen: ListenAddress::Asked("127.0.0.1:2".parse().unwrap()),
            libp2p_listen: vec!["/ip4/127.0.0.1/tcp/3".to_owned()],
            bootstrap_peers: Some(vec![
                "/ip4/127.0.0.1/tcp/4/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
                    .to_owned()
            ]),
            private_network: PrivateNetwork::from_secret("secret"),
            static_relays: vec![
                "/dns4/relay.example.org/tcp/4/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
                    .to_owned()
            ],
            relay_service: RelayService::Anyone,
            upnp: false,
            mdns: false,
            registration: Registration::Token("abcdefgh".to_owned()),
            discoverable: false,
            default_room_version: RoomVersionId::V11,
            rate_limits: None,
            max_upload_bytes: 5,
            first_user: "anna".to_owned(),
            log_format: LogFormat::Json,
            log_level: "debug".to_owned(),
        }
    );
}

#[test]
fn flags_beat_the_environment_and_that_beats_the_file() {
    let environment = [("MESSAGEHUB_LISTEN_ADDRESS".to_owned(), "127.0.0.1:5".to_owned())];
    let none = ConfigFile::Usual(Path::new("/nonexistent"));
    let config = Config::load(&none, &environment, &[]).unwrap();
    assert_eq!(config.listen, ListenAddress::Asked("127.0.0.1:5".parse().unwrap()));
    let flags = [("listenAddress", "127.0.0.1:6".to_owned())];
    let config = Config::load(&none, &environment, &flags).unwrap();
    assert_eq!(config.listen, ListenAddress::Asked("127.0.0.1:6".parse().unwrap()));
}

#[test]
fn lists_and_nulls_in_the_environment() {
    let environment = [
        (
            "MESSAGEHUB_LIBP2P_LISTEN_ADDRESSES".to_owned(),
            "/ip4/127.0.0.1/tcp/3, /ip4/127.0.0.1/udp/3/quic-v1".to_owned(),
        ),
        ("MESSAGEHUB_RATE_LIMITS".to_owned(), "null".to_owned()),
        ("MESSAGEHUB_DATA".to_owned(), "/somewhere".to_owned()),
    ];
    let config = Config::load(&ConfigFile::Usual(Path::new("/nonexistent")), &environment, &[]);
    let config = config.unwrap();
    assert_eq!(config.libp2p_listen.len(), 2);
    assert_eq!(config.rate_limits, None);
}

#[test]
fn an_error_names_the_key_the_fault_and_what_is_allowed() {
    assert_eq!(
        error(r#"{"listenAdress": "127.0.0.1:1"}"#),
        "listenAdress: is not a known key; the nearest is listenAddress"
    );
    assert_eq!(
        error(r#"{"listenAddress": "localhost"}"#),
        "listenAddress: \"localhost\" is not allowed; allowed is an address and a port, such as \
         \"127.0.0.1:8008\""
    );
    assert_eq!(
        error(r#"{"defaultRoomVersion": "1"}"#),
        "defaultRoomVersion: \"1\" is not allowed; allowed is a room version from \"2\" to \"12\""
    );
    assert!(error(r#"{"admin.listenAddress": "0.0.0.0:1"}"#).contains("loopback"));
    assert!(error("[]").ends_with("must be one JSON object"));
    assert!(error("{").contains("is not JSON"));
}

#[test]
fn an_error_does_not_show_a_secret() {
    assert!(!error(r#"{"registration": "token:s3cret!"}"#).contains("s3cret"));
    assert!(!error(r#"{"libp2p.privateNetworkSecret": ["s3cret"]}"#).contains("s3cret"));
}

#[test]
fn an_empty_secret_is_an_error_that_names_the_key_and_the_fix() {
    let expected = "is not allowed; allowed is a text that is not empty";
    let of_file = error(r#"{"libp2p.privateNetworkSecret": ""}"#);
    assert!(of_file.starts_with("libp2p.privateNetworkSecret: "), "{of_file}");
    assert!(of_file.contains(expected) && of_file.contains("remove the key"), "{of_file}");
    let variable = "MESSAGEHUB_LIBP2P_PRIVATE_NETWORK_SECRET".to_owned();
    let environment = [(variable.clone(), String::new())];
    let none = ConfigFile::Usual(Path::new("/nonexistent"));
    let of_variable = Config::load(&none, &environment, &[]).unwrap_err().to_string();
    assert!(of_variable.starts_with(&variable) && of_variable.contains(expected), "{of_variable}");
}

#[test]
fn the_secret_is_not_shown_with_the_configuration() {
    let config = from_file(r#"{"libp2p.privateNetworkSecret": "s3cret"}"#).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn a_relay_behind_a_relay_is_none() {
    let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let relayed = format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}");
    let refused = error(&format!(r#"{{"libp2p.staticRelays": ["{relayed}"]}}"#));
    assert!(refused.starts_with("libp2p.staticRelays: "), "{refused}");
}

#[test]
fn an_empty_list_in_the_environment_is_a_list() {
    let variable = "MESSAGEHUB_LIBP2P_DHT_BOOTSTRAP_PEERS".to_owned();
    let none = ConfigFile::Usual(Path::new("/nonexistent"));
    let config = Config::load(&none, &[(variable, String::new())], &[]).unwrap();
    assert_eq!(config.bootstrap_peers, Some(vec![]));
}

#[test]
fn an_unknown_variable_names_the_nearest() {
    let environment = [("MESSAGEHUB_LISTEN_ADRESS".to_owned(), "x".to_owned())];
    let none = ConfigFile::Usual(Path::new("/nonexistent"));
    let error = Config::load(&none, &environment, &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "MESSAGEHUB_LISTEN_ADRESS: is not a known variable; the nearest is MESSAGEHUB_LISTEN_ADDRESS"
    );
}
