// What ten open pages add to a node's CPU for each request. Usage: cost.mjs BINARY [PAIRS] [REQUESTS]
// A page is what the overview asks for: its stream, and the traffic of all nodes each five seconds. Runs with and without
// pages alternate, of as many requests each; the figure is the median of what the pairs say.
import { request as ask, Agent } from "node:https";
import { Agent as Plain, get } from "node:http";
import { resolve } from "node:path";
import { Cluster } from "./cluster.mjs";

const [binary, pairsText = "7", requestsText = "100000"] = process.argv.slice(2);
const [PAIRS, REQUESTS] = [Number(pairsText), Number(requestsText)];
const PAGES = 10;
const EVERY_MS = 5_000;
const CONNECTIONS = 32;
const MOST_PERCENT = 2;
const NODE = "ap-1";

const cluster = new Cluster(resolve(binary), 22_400);
const agent = new Agent({ rejectUnauthorized: false, keepAlive: true });

function page(token) {
  const call = (path, each) => {
    const url = new URL(`/api/v1/${path}`, cluster.page(NODE));
    const request = ask(url, { agent, headers: { authorization: `Bearer ${token}` } }, (answer) => answer.on("data", each ?? (() => {})));
    request.on("error", () => {});
    request.end();
    return request;
  };
  let open;
  const begun = new Promise((done) => (open = call("stream", done)));
  let since = 0;
  const look = () => {
    call(`traffic${since ? `?since_ms=${since}` : ""}`);
    since = Date.now() - 3 * EVERY_MS;
  };
  look();
  const timer = setInterval(look, EVERY_MS);
  return { begun, close: () => (clearInterval(timer), open.destroy()) };
}

/** As many requests as asked for, through the proxy of the node. */
async function load(requests) {
  const plain = new Plain({ keepAlive: true, maxSockets: CONNECTIONS });
  let left = requests;
  const one = () =>
    new Promise((done, failed) => {
      const asked = { agent: plain, host: "127.0.0.1", port: cluster.port(NODE, 0), path: "/cost", headers: { host: "cost.test" } };
      get(asked, (answer) => {
        if (answer.statusCode !== 200) failed(new Error(`answered ${answer.statusCode}`));
        answer.resume().on("end", done);
      }).on("error", failed);
    });
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      while (left-- > 0) await one();
    }),
  );
  plain.destroy();
}

/** CPU-seconds of the node for 100,000 requests. */
async function run(pages, token) {
  const open = Array.from({ length: pages }, () => page(token));
  await Promise.all(open.map((it) => it.begun));
  const before = cluster.cpuMs(NODE);
  await load(REQUESTS);
  const spent = cluster.cpuMs(NODE) - before;
  open.forEach((it) => it.close());
  return (spent / 1_000) * (100_000 / REQUESTS);
}

const median = (all) => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)];
let failed = true;
try {
  await cluster.start();
  const token = await cluster.cli(["admin-token", "create", "cost", "--role", "viewer", "-q"]);
  await cluster.cli(["apply", "-f", "-"], { input: "routes: [{ name: cost, match: { hosts: [cost.test] }, respond: { status: 200, body: done } }]\n" });
  await run(PAGES, token);
  const pairs = [];
  for (let at = 0; at < PAIRS; at++) {
    const order = at % 2 ? [PAGES, 0] : [0, PAGES];
    const spent = {};
    for (const pages of order) spent[pages] = await run(pages, token);
    pairs.push({ without: spent[0], with: spent[PAGES], percent: (spent[PAGES] / spent[0] - 1) * 100 });
    console.log(`  ${spent[0].toFixed(3)} → ${spent[PAGES].toFixed(3)} CPU-seconds per 100,000 requests (${pairs.at(-1).percent.toFixed(1)} %)`);
  }
  const most = median(pairs.map((it) => it.percent));
  failed = most >= MOST_PERCENT;
  console.log(`${failed ? "×" : "√"} ${PAGES} open pages add ${most.toFixed(2)} % (allowed: less than ${MOST_PERCENT} %), median of ${PAIRS} pairs of ${REQUESTS} requests`);
} finally {
  cluster.stop();
}
process.exit(failed ? 1 : 0);
