//! Lets many users of servers that are nowhere join a public room of a node that is off, for the
//! measurement of joining a large room.
//!
//! ```text
//! fill_room DATA_DIR SERVER_NAME ROOM_ID [MEMBERS] [SERVERS]
//! ```
#![expect(clippy::print_stdout, reason = "a command")]

use std::{error::Error, path::PathBuf, time::Instant};

use messagehub_homeserver::testing::crowd;
use messagehub_store::{Mode, Store};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: fill_room DATA_DIR SERVER_NAME ROOM_ID …");
    let (data, us, room_id) = (PathBuf::from(next()?), next()?, next()?);
    let (us, room_id) = (OwnedServerName::try_from(us)?, OwnedRoomId::try_from(room_id)?);
    let members: usize = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let servers: usize = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let store = Store::open(&data, Mode::Inline)?;
    let begun = Instant::now();
    let now = MilliSecondsSinceUnixEpoch::now();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(crowd::join(&store, &us, &room_id, (members, servers.max(1)), now))?;
    println!("{members} members of {servers} servers joined in {:.1?}", begun.elapsed());
    Ok(())
}
