//! Signed records of where peers are: libp2p's peer records (its RFC 2 and 3), which anybody may
//! pass on. <https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md>

use bytes::Bytes;
use libp2p::{
    Multiaddr, PeerId,
    core::{PeerRecord, SignedEnvelope},
    identity::Keypair,
};
use messagehub_homeserver::peers::MAX_RECORD_BYTES;

/// What a record needs besides its addresses: key, types, PeerId, number, lengths and signature.
const OVERHEAD: usize = 192;

/// What an address needs besides its bytes: two tags and two lengths.
const ADDRESS_OVERHEAD: usize = 6;

/// A record whose signature is right.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) peer: PeerId,
    pub(crate) seq: u64,
    pub(crate) addresses: Vec<Multiaddr>,
}

/// Our own record of these addresses, with its number; the last ones are left out if they do not
/// fit.
pub(crate) fn sign(
    keypair: &Keypair,
    addresses: impl IntoIterator<Item = Multiaddr>,
) -> Option<(u64, Bytes, Vec<Multiaddr>)> {
    let mut room = MAX_RECORD_BYTES - OVERHEAD;
    let mut told = Vec::new();
    for address in addresses {
        let Some(rest) = room.checked_sub(address.len() + ADDRESS_OVERHEAD) else { continue };
        room = rest;
        told.push(address);
    }
    // An Ed25519 key that is at hand can sign.
    let record = PeerRecord::new_interop(keypair, told.clone()).ok()?;
    let seq = record.seq();
    let bytes = record.into_signed_envelope().into_protobuf_encoding();
    Some((seq, bytes.into(), told))
}

/// What a record says, if its signature is that of the peer it is about.
pub(crate) fn verify(bytes: &[u8]) -> Option<Record> {
    if bytes.len() > MAX_RECORD_BYTES {
        return None;
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(bytes).ok()?;
    let record = PeerRecord::from_signed_envelope_interop(envelope).ok()?;
    let addresses = record.addresses().to_vec();
    Some(Record { peer: record.peer_id(), seq: record.seq(), addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keypair() -> Keypair {
        Keypair::ed25519_from_bytes([7; 32]).unwrap()
    }

    fn address(number: usize) -> Multiaddr {
        let relay = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        format!("/ip6/2001:db8::{number}/udp/4001/quic-v1/p2p/{relay}/p2p-circuit").parse().unwrap()
    }

    #[test]
    fn a_record_says_what_was_signed() {
        let (seq, bytes, told) = sign(&keypair(), [address(1), address(2)]).unwrap();
        let record = verify(&bytes).unwrap();
        assert_eq!(record.peer, keypair().public().to_peer_id());
        assert_eq!((record.seq, record.addresses), (seq, told));
    }

    #[test]
    fn a_record_is_never_too_large() {
        let (_, bytes, told) = sign(&keypair(), (0..100).map(address)).unwrap();
        assert!(bytes.len() <= MAX_RECORD_BYTES && bytes.len() > MAX_RECORD_BYTES / 2);
        assert!(verify(&bytes).is_some() && told.len() < 100);
    }

    #[test]
    fn a_changed_record_is_nothing() {
        let (_, bytes, _) = sign(&keypair(), [address(1)]).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert!(verify(&changed).is_none(), "byte {at}");
        }
        assert!(verify(&vec![0; MAX_RECORD_BYTES + 1]).is_none());
    }
}
