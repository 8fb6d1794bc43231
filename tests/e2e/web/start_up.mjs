// node start_up.mjs BASE_URL USER PASSWORD: runs client.mjs in headless Chromium, in a page of
// another origin than the server. Prints each step; exits 1 with what went wrong.

import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

// What a run that proves something asks: web clients' start-up, and what the steps are about.
const ASKED = [
    "GET /_matrix/client/versions",
    "GET /_matrix/client/v3/login",
    "POST /_matrix/client/v3/login",
    "GET /_matrix/client/v3/pushrules/",
    "POST /_matrix/client/v3/user/*/filter",
    "GET /_matrix/client/v3/capabilities",
    "GET /_matrix/client/v3/voip/turnServer",
    "GET /_matrix/client/v3/sync",
    "GET /_matrix/client/v3/rooms/*/members",
    "GET /_matrix/client/v3/rooms/*/messages",
    "POST /_matrix/media/v3/upload",
    "GET /_matrix/client/v1/media/download/*",
];

// The only refusals: a registration that names no stage, a token after its logout, and what this
// server does not have and web clients ask for all the same.
const REFUSED = [
    "401 POST /_matrix/client/v3/register",
    "401 GET /_matrix/client/v3/account/whoami",
    "404 GET /_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
];

const [base, user, password] = process.argv.slice(2);
if (!password) {
    console.error("usage: node start_up.mjs BASE_URL USER PASSWORD");
    process.exit(2);
}

const PAGE = `<!doctype html><meta charset="utf-8"><title>A web client</title>
<link rel="icon" href="data:,"><script type="module" src="/client.js"></script>`;

async function bundle() {
    const { outputFiles } = await build({
        entryPoints: [fileURLToPath(new URL("client.mjs", import.meta.url))],
        bundle: true,
        format: "esm",
        target: "es2022",
        write: false,
    });
    return outputFiles[0].text;
}

async function serve(script) {
    const server = createServer((request, response) => {
        const isScript = request.url === "/client.js";
        const type = isScript ? "text/javascript" : "text/html";
        response.writeHead(200, { "Content-Type": type }).end(isScript ? script : PAGE);
    });
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    return server;
}

/** What the browser has to say: complaints, and the requests it made. */
async function listen(tab) {
    const heard = { complaints: [], asked: new Set(), preflights: 0 };
    const complain = (text) => heard.complaints.push(text);
    tab.on("pageerror", (error) => complain(error.stack));
    tab.on("console", (message) => {
        // A refused request is judged below, with its method.
        const isRefusal = message.text().startsWith("Failed to load resource: the server responded");
        if (message.type() === "error" && !isRefusal) complain(message.text());
    });
    tab.on("requestfailed", (request) => {
        const { errorText } = request.failure();
        // Long polls end like this when the client stops.
        if (errorText !== "net::ERR_ABORTED") complain(`${request.url()}: ${errorText}`);
    });
    tab.on("response", (response) => {
        const asked = `${response.request().method()} ${pattern(response.url())}`;
        heard.asked.add(asked);
        if (response.status() >= 400 && !REFUSED.includes(`${response.status()} ${asked}`)) {
            complain(`${asked} answered ${response.status()}`);
        }
    });
    const wire = await tab.context().newCDPSession(tab);
    wire.on("Network.responseReceived", ({ type }) => {
        if (type === "Preflight") heard.preflights++;
    });
    await wire.send("Network.enable");
    return heard;
}

/** A path with a star for every id in it. */
function pattern(url) {
    const path = decodeURIComponent(new URL(url).pathname);
    return path.replace(/[/][@!$][^/]+/g, "/*").replace(/download[/].*/, "download/*");
}

async function run() {
    const server = await serve(await bundle());
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    const browser = await chromium.launch({ executablePath });
    try {
        const tab = await browser.newPage();
        const heard = await listen(tab);
        await tab.exposeFunction("say", (step) => console.log(`a web client ${step}`));
        await tab.goto(`http://127.0.0.1:${server.address().port}/`);
        const account = { base, user, password };
        const failure = await tab.evaluate(
            (account) => startUp(account, say).then(() => null, (error) => error.message),
            account,
        );
        const missing = ASKED.filter((request) => !heard.asked.has(request));
        const faults = heard.complaints.concat(missing.map((request) => `never asked: ${request}`));
        if (heard.preflights === 0) faults.push("no preflight was sent");
        return failure ? [failure, ...faults] : faults;
    } finally {
        await browser.close();
        server.close();
    }
}

const faults = await run();
for (const fault of faults) console.error(fault);
process.exitCode = faults.length ? 1 : 0;
