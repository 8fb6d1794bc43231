use messagehub_store::{
    Mode, Store, StoreError, Txn,
    peer_records::{self, Kept, MAX_PER_SERVER, MAX_RECORD_BYTES},
};
use ruma::ServerName;

fn in_txn(test: impl FnOnce(&mut Txn<'_>) -> Result<(), StoreError> + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.write(test)).unwrap();
}

fn server(name: &str) -> &ServerName {
    <&ServerName>::try_from(name).unwrap()
}

#[test]
fn the_newest_record_of_each_peer_is_kept() {
    in_txn(|txn| {
        let mut put = |peer: &str, seq, record: &[u8]| {
            peer_records::put_if_newer(txn, server("b"), (peer, seq, record)).unwrap()
        };
        assert_eq!(put("p", 5, b"five"), Kept::Newer);
        assert_eq!(put("q", 1, b"other"), Kept::Newer);
        assert_eq!(put("p", 5, b"again"), Kept::No);
        assert_eq!(put("p", 4, b"older"), Kept::No);
        assert_eq!(put("p", 6, b"six"), Kept::Newer);
        assert_eq!(put("p", 7, &[0; MAX_RECORD_BYTES + 1]), Kept::No);
        let all = peer_records::list_since(txn, 0, 10)?;
        let found: Vec<_> = all.iter().map(|r| (r.peer_id.as_str(), r.seq, &*r.record)).collect();
        assert_eq!(found, [("q", 1, &b"other"[..]), ("p", 6, b"six")]);
        assert_eq!(peer_records::list_since(txn, all[0].change, 10)?, all[1..]);
        assert_eq!(peer_records::last_change(txn)?, all[1].change);
        Ok(())
    });
}

#[test]
fn one_server_has_a_bounded_number() {
    in_txn(|txn| {
        for n in 0..=MAX_PER_SERVER {
            peer_records::put_if_newer(txn, server("b"), (&format!("p{n}"), 1, b"r"))?;
        }
        peer_records::put_if_newer(txn, server("c"), ("p", 1, b"r"))?;
        let all = peer_records::list_since(txn, 0, 100)?;
        assert_eq!(all.len(), 17);
        assert!(all.iter().all(|record| record.peer_id != "p0"), "the oldest gave way");
        Ok(())
    });
}
