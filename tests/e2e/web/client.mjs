// A web client's first minutes, written as web clients are: with matrix-js-sdk, in a page.

import * as sdk from "matrix-js-sdk";

// How long a step may take. Generous: the machine may be busy, and no step waits this long when
// all is well.
const DEADLINE_MS = 60_000;
// Events of a room in an initial sync; Element asks for 20, fewer make the history longer.
const INITIAL_SYNC_LIMIT = 8;
// Texts in the room before the reload: several pages of PAGE events.
const TEXTS = 30;
const PAGE = 10;

const STEPS = [
    ["logs in", logIn],
    ["starts", start],
    ["creates a room", createRoom],
    ["sends a text and sees both echoes", sendText],
    ["meets somebody", meet],
    ["sends and sees receipts", receipts],
    ["sends and sees typing", typing],
    ["names the room", nameRoom],
    ["sets its display name", setDisplayName],
    ["uploads and downloads a file", media],
    ["talks on", talk],
    ["reloads", reload],
    ["loads the members lazily", members],
    ["scrolls back to the beginning", scrollBack],
    ["logs out", logOut],
];

/** Does every step; throws an error that names the step that failed. */
globalThis.startUp = async ({ base, user, password }, say) => {
    const session = { base, user, password };
    for (const [name, step] of STEPS) {
        let late;
        const deadline = new Promise((_, reject) => {
            late = setTimeout(() => reject(new Error(`not within ${DEADLINE_MS} ms`)), DEADLINE_MS);
        });
        try {
            await Promise.race([step(session), deadline]);
        } catch (error) {
            throw new Error(`a web client ${name}: ${error.stack}`);
        } finally {
            clearTimeout(late);
        }
        say(name);
    }
};

async function logIn(session) {
    const client = sdk.createClient({ baseUrl: session.base });
    const { flows } = await client.loginFlows();
    expect(flows.some((flow) => flow.type === "m.login.password"), "a password can be used");
    session.login = await client.loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: session.user },
        password: session.password,
        initial_device_display_name: "A browser",
    });
    expect(session.login.user_id.startsWith(`@${session.user}:`), "the user's own id");
}

async function start(session) {
    const client = sdk.createClient({
        baseUrl: session.base,
        userId: session.login.user_id,
        deviceId: session.login.device_id,
        accessToken: session.login.access_token,
    });
    session.client = client;
    const synced = until(client, "sync", () => client.getSyncState() === "SYNCING");
    await client.startClient({
        initialSyncLimit: INITIAL_SYNC_LIMIT,
        lazyLoadMembers: true,
        pendingEventOrdering: sdk.PendingEventOrdering.Detached,
        threadSupport: true,
    });
    await synced;
    expect(client.pushRules.global.underride.length > 0, "the default push rules");
    expect((await client.getCapabilities())["m.room_versions"], "the room versions");
    if (session.roomId) session.room = client.getRoom(session.roomId);
}

async function createRoom(session) {
    const { client } = session;
    const { room_id: roomId } = await client.createRoom({ preset: "public_chat" });
    session.roomId = roomId;
    session.room = await until(client, "Room", () => client.getRoom(roomId));
    await until(session.room, "Room.myMembership", () => session.room.getMyMembership() === "join");
}

async function sendText({ client, room }) {
    const pending = () => room.getPendingEvents().find((event) => event.getContent().body === "hi");
    const local = until(room, "Room.localEchoUpdated", pending);
    const sent = client.sendTextMessage(room.roomId, "hi");
    expect((await local).status === "sending", "the local echo is there before the answer");
    const { event_id: id } = await sent;
    const remote = await until(room, "Room.timeline", () => room.findEventById(id));
    expect(remote.getUnsigned().transaction_id, "the remote echo names the transaction");
    await until(room, "Room.localEchoUpdated", () => !pending());
    expect(texts(room).filter((text) => text === "hi").length === 1, "one text, not two");
}

/** Somebody registers, as web clients do it, comes in and speaks. */
async function meet(session) {
    const { base, client, room } = session;
    const newcomer = sdk.createClient({ baseUrl: base });
    const account = { username: `friend-of-${session.user}`, password: session.password };
    const needed = await newcomer.registerRequest(account).catch((error) => error);
    expect(needed.httpStatus === 401, "a registration asks for stages first");
    const auth = { type: "m.login.dummy", session: needed.data.session };
    const friend = await newcomer.registerRequest({ ...account, auth });
    session.friend = sdk.createClient({
        baseUrl: base,
        userId: friend.user_id,
        deviceId: friend.device_id,
        accessToken: friend.access_token,
    });
    await session.friend.joinRoom(room.roomId);
    const { event_id: id } = await session.friend.sendTextMessage(room.roomId, "hello");
    session.hello = await until(room, "Room.timeline", () => room.findEventById(id));
    const name = room.getMember(friend.user_id).name;
    expect(name === account.username, `the sender comes with the event, not ${name}`);
    expect(client.getPushActionsForEvent(session.hello).notify, "the push rules notify");
}

async function receipts({ client, friend, room, hello }) {
    const unread = () => room.getUnreadNotificationCount();
    await until(room, "Room.UnreadNotifications", () => unread() === 1);
    await client.sendReadReceipt(hello);
    const read = (user) => room.getEventReadUpTo(user, true) === hello.getId();
    await until(room, "Room.receipt", () => read(client.getUserId()));
    await until(room, "Room.UnreadNotifications", () => unread() === 0);
    await friend.sendReadReceipt(hello);
    await until(room, "Room.receipt", () => read(friend.getUserId()));
}

async function typing({ client, friend, room }) {
    for (const typist of [client, friend]) {
        const member = room.getMember(typist.getUserId());
        await typist.sendTyping(room.roomId, true, DEADLINE_MS);
        await until(member, "RoomMember.typing", () => member.typing);
        await typist.sendTyping(room.roomId, false, DEADLINE_MS);
        await until(member, "RoomMember.typing", () => !member.typing);
    }
}

async function nameRoom({ client, room }) {
    await client.setRoomName(room.roomId, "The web");
    await until(room, "Room.name", () => room.name === "The web");
}

async function setDisplayName({ client, room }) {
    await client.setDisplayName("Webster");
    const { displayname } = await client.getProfileInfo(client.getUserId());
    expect(displayname === "Webster", `the profile says ${displayname}`);
    const member = room.getMember(client.getUserId());
    await until(member, "RoomMember.name", () => member.name === "Webster");
}

async function media({ client }) {
    expect((await client.getMediaConfig())["m.upload.size"] > 0, "a largest file");
    const bytes = Uint8Array.from({ length: 1024 }, (_, i) => i % 256);
    const file = new Blob([bytes], { type: "application/octet-stream" });
    const { content_uri: uri } = await client.uploadContent(file, { name: "bytes.bin" });
    const whole = [undefined, undefined, undefined];
    const url = client.mxcUrlToHttp(uri, ...whole, false, true, true);
    const headers = { Authorization: `Bearer ${client.getAccessToken()}` };
    const answer = await fetch(url, { headers });
    expect(answer.ok, `the download answers ${answer.status}`);
    const got = new Uint8Array(await answer.arrayBuffer());
    expect(got.length === bytes.length && got.every((byte, i) => byte === bytes[i]), "its bytes");
}

async function talk({ client, room }) {
    for (let i = 0; i < TEXTS; i++) await client.sendTextMessage(room.roomId, `text ${i}`);
    await until(room, "Room.timeline", () => texts(room).at(-1) === `text ${TEXTS - 1}`);
}

/** The page is opened anew: the same login, but nothing that was known. */
async function reload(session) {
    session.client.stopClient();
    await start(session);
    const known = session.room.getLiveTimeline().getEvents().length;
    expect(known <= INITIAL_SYNC_LIMIT, `the initial sync is short, not ${known} events`);
    expect(session.room.name === "The web", `the room is named ${session.room.name}`);
}

async function members({ friend, room }) {
    const silent = friend.getUserId();
    expect(room.getMember(silent) === null, "who was silent lately is not known");
    expect(room.getJoinedMemberCount() === 2, "the summary counts them");
    await room.loadMembersIfNeeded();
    expect(room.getMember(silent).membership === "join", "the friend is known");
}

async function scrollBack({ client, room }) {
    const timeline = room.getLiveTimeline();
    const page = { backwards: true, limit: PAGE };
    let pages = 0;
    while (await client.paginateEventTimeline(timeline, page)) pages++;
    expect(pages > 1, `several pages, not ${pages}`);
    expect(timeline.getEvents()[0].getType() === "m.room.create", "the very first event");
    const said = ["hi", "hello", ...Array.from({ length: TEXTS }, (_, i) => `text ${i}`)];
    expect(texts(room).join() === said.join(), `all that was said, not ${texts(room)}`);
}

async function logOut({ base, login, client }) {
    await client.logout(true);
    const headers = { Authorization: `Bearer ${login.access_token}` };
    const answer = await fetch(`${base}/_matrix/client/v3/account/whoami`, { headers });
    const { errcode } = await answer.json();
    expect(errcode === "M_UNKNOWN_TOKEN", "the token is of no use any more");
}

function texts(room) {
    const events = room.getLiveTimeline().getEvents();
    const said = events.filter((event) => event.getType() === "m.room.message");
    return said.map((event) => event.getContent().body);
}

/** Waits until `look` gives something, looking now and at each such event. */
function until(emitter, event, look) {
    return new Promise((resolve, reject) => {
        const check = () => {
            try {
                const found = look();
                if (!found) return;
                resolve(found);
            } catch (error) {
                reject(error);
            }
            emitter.off(event, check);
        };
        emitter.on(event, check);
        check();
    });
}

function expect(truth, what) {
    if (!truth) throw new Error(`expected: ${what}`);
}
