//! Coming into rooms and going out of them.
//!
//! Spec: Client-Server API, "Room membership".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    rooms::{
        forget,
        invite::{self, Invite},
        join::{self, Join},
        knock::{self, Knock},
        leave,
        moderate::{self, Action, Moderation},
    },
    sessions::Session,
};
use ruma::api::client::{
    knock::knock_room,
    membership::{
        ban_user, forget_room, invite_user, join_room_by_id, join_room_by_id_or_alias, kick_user,
        leave_room, unban_user,
    },
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(invite_user)
        .ruma(join_by_id)
        .ruma(join)
        .ruma(knock)
        .ruma(leave)
        .ruma(forget)
        .ruma(kick)
        .ruma(ban)
        .ruma(unban)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/invite`
async fn invite_user(
    hs: Homeserver,
    session: Session,
    req: invite_user::v3::Request,
) -> Result<invite_user::v3::Response, ApiError> {
    let invite_user::v3::InvitationRecipient::UserId(invited) = req.recipient else {
        return Err(ApiError::invalid_param("Only user ids can be invited."));
    };
    let invite = Invite { room_id: req.room_id, user_id: invited.user_id, reason: invited.reason };
    invite::invite(&hs, &session.user_id, invite).await?;
    Ok(invite_user::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
async fn join_by_id(
    hs: Homeserver,
    session: Session,
    req: join_room_by_id::v3::Request,
) -> Result<join_room_by_id::v3::Response, ApiError> {
    let join = Join { target: req.room_id.into(), via: Vec::new(), reason: req.reason };
    let room_id = join::join(&hs, &session.user_id, join).await?;
    Ok(join_room_by_id::v3::Response::new(room_id))
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
async fn join(
    hs: Homeserver,
    session: Session,
    req: join_room_by_id_or_alias::v3::Request,
) -> Result<join_room_by_id_or_alias::v3::Response, ApiError> {
    let join = Join { target: req.room_id_or_alias, via: req.via, reason: req.reason };
    let room_id = join::join(&hs, &session.user_id, join).await?;
    Ok(join_room_by_id_or_alias::v3::Response::new(room_id))
}

/// `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
async fn knock(
    hs: Homeserver,
    session: Session,
    req: knock_room::v3::Request,
) -> Result<knock_room::v3::Response, ApiError> {
    let knock = Knock { target: req.room_id_or_alias, via: req.via, reason: req.reason };
    let room_id = knock::knock(&hs, &session.user_id, knock).await?;
    Ok(knock_room::v3::Response::new(room_id))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
async fn leave(
    hs: Homeserver,
    session: Session,
    req: leave_room::v3::Request,
) -> Result<leave_room::v3::Response, ApiError> {
    leave::leave(&hs, &session.user_id, req.room_id, req.reason).await?;
    Ok(leave_room::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/forget`
async fn forget(
    hs: Homeserver,
    session: Session,
    req: forget_room::v3::Request,
) -> Result<forget_room::v3::Response, ApiError> {
    forget::forget(&hs, &session.user_id, req.room_id).await?;
    Ok(forget_room::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/kick`
async fn kick(
    hs: Homeserver,
    session: Session,
    req: kick_user::v3::Request,
) -> Result<kick_user::v3::Response, ApiError> {
    let (room_id, user_id, reason) = (req.room_id, req.user_id, req.reason);
    let kick = Moderation { room_id, user_id, action: Action::Kick, reason };
    moderate::moderate(&hs, &session.user_id, kick).await?;
    Ok(kick_user::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/ban`
async fn ban(
    hs: Homeserver,
    session: Session,
    req: ban_user::v3::Request,
) -> Result<ban_user::v3::Response, ApiError> {
    let (room_id, user_id, reason) = (req.room_id, req.user_id, req.reason);
    let ban = Moderation { room_id, user_id, action: Action::Ban, reason };
    moderate::moderate(&hs, &session.user_id, ban).await?;
    Ok(ban_user::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/unban`
async fn unban(
    hs: Homeserver,
    session: Session,
    req: unban_user::v3::Request,
) -> Result<unban_user::v3::Response, ApiError> {
    let (room_id, user_id, reason) = (req.room_id, req.user_id, req.reason);
    let unban = Moderation { room_id, user_id, action: Action::Unban, reason };
    moderate::moderate(&hs, &session.user_id, unban).await?;
    Ok(unban_user::v3::Response::new())
}
