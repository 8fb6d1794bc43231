//! Giving an account up, for good.
//!
//! Spec: Client-Server API, "POST /account/deactivate".

use messagehub_store::{
    StoreError, Txn, account_data, cross_signing, devices, joins_under_way, memberships, openid,
    presence, profiles, rooms, users,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, ServerName, UserId,
    events::room::member::MembershipState,
};

use crate::{
    Homeserver,
    encryption::device_lists,
    rooms::leave,
    sessions::Session,
    uia::{self, Proof, UiaError},
    user_directory,
};

/// How much goes with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What others see: memberships, the profile, devices and their keys.
    Account,
    /// Also what clients kept here for their user.
    Everything,
}

/// Gives the account of a session up, after a proof: its user leaves all rooms, its devices are
/// logged out, its profile is gone, and nobody logs in to it or gets its name again.
///
/// # Errors
/// See [`UiaError`]. What was done until the store failed stays done, and is not done twice.
pub async fn deactivate(
    hs: &Homeserver,
    session: &Session,
    proof: Option<Proof>,
    extent: Extent,
) -> Result<(), UiaError> {
    uia::confirm(hs, session, proof).await?;
    let user_id = &session.user_id;
    for room_id in rooms_of(hs, user_id).await? {
        if let Err(error) = leave::leave(hs, user_id, room_id.clone(), None).await {
            // A room that cannot be left must not keep anybody from giving up their account.
            tracing::warn!(%user_id, %room_id, %error, "a room could not be left");
        }
    }
    let (us, now, user) = (hs.server_name().to_owned(), hs.clock.now(), user_id.clone());
    hs.store.write(move |txn| remove(txn, (&us, &user), extent, now)).await?;
    hs.store.activity().forget(user_id);
    hs.peers.wake();
    Ok(user_directory::advertise(hs).await?)
}

/// The rooms that somebody is in, or could come into.
async fn rooms_of(hs: &Homeserver, user_id: &UserId) -> Result<Vec<OwnedRoomId>, StoreError> {
    let user_id = user_id.to_owned();
    hs.store
        .read(move |snap| {
            let mut found = Vec::new();
            for member in memberships::list_of_user(snap, &user_id)? {
                if matches!(
                    member.membership,
                    MembershipState::Join | MembershipState::Invite | MembershipState::Knock
                ) {
                    found.push(rooms::get_by_nid(snap, member.room)?.room_id);
                }
            }
            Ok(found)
        })
        .await
}

fn remove(
    txn: &mut Txn<'_>,
    (us, user_id): (&ServerName, &UserId),
    extent: Extent,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    users::deactivate(txn, user_id, now)?;
    joins_under_way::withdraw_all(txn, user_id)?;
    for device in devices::list(txn, user_id)? {
        device_lists::remove_device(txn, us, (user_id, &device.device_id), now)?;
    }
    cross_signing::remove_all(txn, user_id)?;
    device_lists::signing_keys_changed(txn, us, user_id, now)?;
    profiles::remove(txn, user_id)?;
    openid::remove_all(txn, user_id)?;
    presence::remove(txn, user_id)?;
    if extent == Extent::Everything {
        account_data::remove_all(txn, user_id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounts,
        passwords::Password,
        profiles::{self as profile_uses, ProfileError},
        sessions::{Credentials, LoginError, NewDevice, log_in},
        testing::TestServer,
    };

    #[tokio::test]
    async fn an_account_is_given_up_for_good() {
        let server = TestServer::new(1);
        let hs = &server.hs;
        let password = || Password::new("a long enough password".to_owned()).unwrap();
        let user_id = accounts::create(hs, "ann", Some(password())).await.unwrap();
        let credentials = || Credentials::Password { user: "ann".to_owned(), password: password() };
        let session = log_in(hs, credentials(), NewDevice::default()).await.unwrap().session;
        let room_id = server.room(&session, None).await;
        let asked = deactivate(hs, &session, None, Extent::Everything).await;
        assert!(matches!(asked, Err(UiaError::Challenge(_))), "{asked:?}");
        let proof = Proof::Password { user: "ann".to_owned(), password: password() };
        deactivate(hs, &session, Some(proof), Extent::Everything).await.unwrap();

        let refused = log_in(hs, credentials(), NewDevice::default()).await;
        assert!(matches!(refused, Err(LoginError::WrongCredentials)), "{refused:?}");
        let taken = accounts::create(hs, "ann", None).await;
        assert!(matches!(taken, Err(accounts::CreateError::Taken)), "{taken:?}");
        let profile = profile_uses::get(hs, &user_id).await;
        assert!(matches!(profile, Err(ProfileError::Unknown)), "{profile:?}");
        let left = server
            .read(move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                Ok((
                    memberships::is_joined(snap, room.nid, &user_id)?,
                    devices::list(snap, &user_id)?,
                ))
            })
            .await;
        assert_eq!(left, (false, Vec::new()));
    }
}
