//! People with a server each; a name is a seed.

use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, UInt, UserId, uint};

use crate::{
    build::Signer,
    keys::{IdentityKey, VerifyKey},
    server_keys::{KeyRing, ServerKeys, ServerKeysTerms},
};

/// A moment so many milliseconds after the tests begin to play.
pub(crate) fn at(ms: u32) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(uint!(1_000_000_000) + UInt::from(ms))
}

/// Somebody who can sign.
pub(crate) struct Person {
    identity: IdentityKey,
    verify: VerifyKey,
    pub(crate) user_id: OwnedUserId,
}

impl Person {
    pub(crate) fn signer(&self) -> Signer<'_> {
        Signer { server: self.identity.server_name(), key: &self.verify }
    }

    pub(crate) fn server_keys(&self) -> ServerKeys {
        let terms = ServerKeysTerms { old_verify_keys: vec![], peer_ids: vec![], issued_ts: at(0) };
        ServerKeys::make(&self.identity, &self.verify, terms)
    }
}

/// The person of a name, always the same.
pub(crate) fn person(name: &str) -> Person {
    let seed = |salt: u8| {
        let mut seed = [salt; 32];
        seed.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        seed
    };
    let identity = IdentityKey::from_seed(&seed(1));
    let verify = VerifyKey::from_seed(&seed(2));
    let user_id = UserId::parse(format!("@{name}:{}", identity.server_name())).unwrap();
    Person { identity, verify, user_id }
}

/// The keys of several people.
pub(crate) fn ring(names: &[&str]) -> KeyRing {
    let keys = |name: &&str| person(name).server_keys();
    names.iter().map(keys).map(|keys| (keys.server_name().to_owned(), keys)).collect()
}
