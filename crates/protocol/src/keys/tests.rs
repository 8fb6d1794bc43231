use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

/// RFC 8032, section 7.1, test 2.
#[test]
fn signs_as_the_rfc_does() {
    let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
    let seed: [u8; 32] =
        hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").try_into().unwrap();
    let public = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let signature = hex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
    let identity = IdentityKey::from_seed(&seed);
    let verify = VerifyKey::from_seed(&seed);
    assert_eq!(identity.server_key().as_bytes()[..], public);
    assert_eq!(verify.public_key()[..], public);
    assert_eq!(identity.sign(&[0x72])[..], signature);
    assert_eq!(verify.sign(&[0x72])[..], signature);
}

#[test]
fn the_key_id_is_derived_from_the_key() {
    let key = VerifyKey::from_seed(&[7; 32]);
    assert_eq!(key.key_id().as_str(), "ed25519:72asyextvngonlc5");
    assert_eq!(key.key_id(), key.as_public_key().key_id());
}

#[test]
fn debug_output_holds_no_secret() {
    let seed = [0xab; 32];
    let verify = VerifyKey::from_seed(&seed);
    for text in [format!("{:?}", IdentityKey::from_seed(&seed)), format!("{verify:?} {verify:#?}")]
    {
        assert!(!text.contains("171, 171") && !text.contains("abab"), "{text}");
    }
}

proptest! {
    #[test]
    fn both_libraries_sign_alike(seed: [u8; 32], message: Vec<u8>) {
        let (identity, verify) = (IdentityKey::from_seed(&seed), VerifyKey::from_seed(&seed));
        prop_assert_eq!(identity.sign(&message), verify.sign(&message));
    }

    #[test]
    fn a_changed_bit_is_noticed(message: Vec<u8>, bit in 0..512usize) {
        let key = VerifyKey::from_seed(&[1; 32]);
        let mut signature = key.sign(&message);
        prop_assert!(key.as_public_key().verifies(&message, &signature));
        signature[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!key.as_public_key().verifies(&message, &signature));
    }

    #[test]
    fn arbitrary_keys_never_panic(bytes: [u8; 32]) {
        if let Some(key) = PublicKey::from_bytes(&bytes) {
            prop_assert_eq!(key.as_bytes(), &bytes);
            prop_assert!(!key.verifies(b"anything", &[0; 64]));
        }
    }
}
