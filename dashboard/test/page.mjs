// What the page must show, in a real browser against a real cluster. Usage: page.mjs BINARY CHROMIUM [--pictures] [--patient]
// --patient: what must be soon may take ten times as long, for machines that do other work meanwhile.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";
import { Cluster } from "./cluster.mjs";

const [binary, chromiumPath, ...flags] = process.argv.slice(2);
const PAGES = ["overview", "cluster", "routes", "routes/orders", "traffic", "limits", "access", "objects", "objects/limits/shop-window", "changes", "audit", "doctor"];
const VERBS = ["Drain", "Undrain", "Promote", "Demote", "Edit", "Delete", "Revoke", "Disable", "Enable", "Confirm", "Abort", "Undo", "Roll back", "Hand over", "Create", "Rotate", "New object", "Write"];
const ROUTES = 1_000;
const SOON_MS = 60_000;
const PATIENCE = flags.includes("--patient") ? 10 : 1;
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const cluster = new Cluster(resolve(binary), 22_400);
let browser;
let failed = 0;
const faults = [];

async function check(sentence, run) {
  const from = performance.now();
  try {
    const told = await run();
    console.log(`√ ${sentence.padEnd(72)} ${told ?? `${Math.round(performance.now() - from)} ms`}`);
  } catch (error) {
    failed++;
    console.log(`× ${sentence}\n    ${String(error.message).split("\n").slice(0, 6).join("\n    ")}`);
  }
}

function must(holds, found) {
  if (!holds) throw new Error(`found ${typeof found === "string" ? found : JSON.stringify(found)}`);
}

/** Milliseconds until it holds. */
async function until(holds, withinMs = SOON_MS) {
  const from = performance.now();
  for (;;) {
    const found = await holds();
    if (found) return Math.round(performance.now() - from);
    if (performance.now() - from > withinMs) throw new Error(`not within ${withinMs} ms: ${holds}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

async function signedIn(node, token, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (it) => it.type() === "error" && !page.expected && faults.push(it.text()));
  await page.goto(cluster.page(node));
  await page.fill("#token", token);
  await press(page, "Sign in");
  await page.waitForSelector("#verdict");
  return page;
}

const go = async (page, place) => {
  await page.evaluate((it) => (location.hash = `#/${it}`), place);
  await page.waitForFunction(() => !/reading |asking /.test(document.querySelector("main").innerText), null, { timeout: SOON_MS });
};
const press = (within, name) => within.getByRole("button", { name, exact: true }).click();
const text = (page, at) => page.textContent(at);
const within = (found, most) => (must(found < most * PATIENCE, `${found} ms`), `${found} ms`);

/** Whatever is found on any page is too much. */
async function everyPage(node, token, options, look) {
  const page = await signedIn(node, token, options);
  const found = [];
  for (const place of PAGES) {
    await go(page, place);
    found.push(...(await look(page, place)));
  }
  await page.context().close();
  must(found.length === 0, found);
}

async function run() {
  await cluster.start();
  browser = await chromium.launch({ executablePath: chromiumPath, args: ["--no-sandbox"] });
  const token = (role) => cluster.cli(["admin-token", "create", `page-${role}`, "--role", role, "-q"]);
  const [viewer, operator] = [await token("viewer"), await token("operator")];
  const { port } = cluster.slow.address();
  const slow = `upstreams: [{ name: slow, targets: ["127.0.0.1:${port}"] }]\npolicies: [{ name: unusual, anomaly: { per: ip, window: 30m, over: { requests: 20 } } }]\nroutes: [{ name: slow, match: { hosts: [slow.test] }, upstream: slow, policies: [unusual] }]\nconsumers: [{ name: page-shop }]\n`;
  await cluster.cli(["apply", "-f", "-", "-m", "for the page's test"], { input: slow });
  for (let i = 0; i < 30; i++) await cluster.request("/");

  const page = await signedIn("eu-1", operator);
  await check("the verdict is good and names the revision", async () => {
    await until(async () => /All 3 nodes serve revision \d+; 1 voter may fail/.test(await text(page, "#verdict")));
    return text(page, "#verdict");
  });
  await check("a change by the command line is there in less than a second", async () => {
    const { revision } = await cluster.json(["rollback", "--previous"]);
    const took = within(await until(async () => (await text(page, "#served-by")).includes(`revision ${revision}`)), 1_000);
    await cluster.cli(["rollback", "--previous"]);
    return took;
  });
  await check("a revocation by the command line is there in less than a second", async () => {
    const before = Number(await text(page, "#revocation-count"));
    await cluster.cli(["token", "revoke", "--jti", "page-1", "--issuer", "https://idp.shop.test", "--expires-in", "1h"], { node: "us-1" });
    return within(await until(async () => Number(await text(page, "#revocation-count")) === before + 1), 1_000);
  });

  await check("what is requested is in the tap, and a click explains it", async () => {
    await go(page, "traffic?route=slow");
    await until(async () => (await cluster.request("/tapped"), (await text(page, "#tap")).includes("/tapped")));
    await page.click("#tap a >> nth=0");
    await page.waitForSelector("text=/\\/tapped/");
    await page.waitForSelector("text=in the gateway");
  });
  await check("a request is tried without being sent", async () => {
    await go(page, "routes/orders");
    await press(page, "Try");
    await page.waitForSelector("#match");
    must((await text(page, "#match")).includes("orders takes it"), await text(page, "#match"));
  });
  await check("a trial is begun, counts down and is confirmed", async () => {
    await go(page, "routes/hello");
    await press(page, "Edit");
    const words = JSON.parse(await page.inputValue("#words"));
    await page.fill("#words", JSON.stringify({ ...words, description: "tried" }, null, 2));
    await press(page, "Check");
    await page.waitForSelector("#checked .new");
    await press(page, "Try for two minutes");
    await page.waitForSelector("#countdown");
    const first = await text(page, "#countdown");
    await until(async () => (await text(page, "#countdown")) !== first);
    await press(page.locator(".trial > .buttons"), "Confirm");
    await press(page.locator("dialog"), "Confirm");
    await page.waitForSelector("dialog .done");
    await press(page.locator("dialog"), "Close");
    await until(async () => (await page.$("#countdown")) === null);
    must((await cluster.json(["route", "get", "hello"])).description === "tried", "another description");
  });
  await check("a rollback by the page brings back what was", async () => {
    await go(page, "changes");
    await press(page.locator("main"), "Undo the last change");
    must((await text(page, "dialog code")).startsWith("quorumgate rollback --previous"), await text(page, "dialog code"));
    await press(page.locator("dialog"), "Undo the last change");
    await page.waitForSelector("dialog .done");
    await press(page.locator("dialog"), "Close");
    must((await cluster.json(["route", "get", "hello"])).description !== "tried", "it is still there");
  });
  await check("what was confirmed is done, though others write meanwhile", async () => {
    const describe = async (text) => {
      const words = await cluster.json(["route", "get", "hello"]);
      delete words.etag;
      const input = `routes: [${JSON.stringify({ ...words, description: text })}]\n`;
      return (await cluster.cli(["apply", "-f", "-", "-o", "json"], { input }).then(JSON.parse)).revision;
    };
    const shown = async (revision) => until(async () => (await text(page, "#served-by")).includes(`revision ${revision}`));
    await shown(await describe("first"));
    await go(page, "changes");
    await press(page.locator("main"), "Undo the last change");
    const asked = [await text(page, "dialog h2"), await text(page, "dialog code")];
    await shown(await describe("second"));
    must([await text(page, "dialog h2"), await text(page, "dialog code")].join() === asked.join(), "another question than at the click");
    page.expected = true;
    await press(page.locator("dialog"), "Undo the last change");
    await page.waitForSelector("dialog .failed");
    page.expected = false;
    await press(page.locator("dialog"), "Cancel");
    must((await cluster.json(["route", "get", "hello"])).description === "second", "the change that nobody was asked about is undone");

    await go(page, "routes/hello");
    await press(page, "Edit");
    const before = await page.inputValue("#words");
    await shown(await describe("third"));
    must((await page.inputValue("#words")) === before, "the words change while they are edited");
    await page.fill("#words", JSON.stringify({ ...JSON.parse(before), description: "mine" }, null, 2));
    page.expected = true;
    await press(page, "Check");
    await page.waitForSelector("main .failed");
    page.expected = false;
    must((await cluster.json(["route", "get", "hello"])).description === "third", "what another wrote is overwritten");
    await press(page, "Cancel");
  });
  await check("a key is made and rotated, its secret shown once; a token is revoked", async () => {
    await go(page, "access");
    const form = page.getByRole("form", { name: "A new key" });
    await form.getByLabel("Scopes").fill("orders:read");
    await press(form, "Create");
    must(/^quorumgate key create \S+ --scopes /.test(await text(page, "dialog code")), await text(page, "dialog code"));
    await press(page.locator("dialog"), "Create");
    await page.waitForSelector("dialog .done code");
    const secret = await text(page, "dialog .done code");
    must(secret.startsWith("qg_"), "no secret");
    await press(page.locator("dialog"), "Close");
    const id = (await cluster.json(["key", "ls"])).keys.find((it) => secret.startsWith(it.prefix)).id;
    must(!(await page.content()).includes(secret), "the secret is still there");
    const row = page.locator("tr", { has: page.getByText(id, { exact: true }) });
    await press(row, "Rotate");
    await press(page.locator("dialog"), "Rotate");
    await page.waitForSelector("dialog .done code");
    must((await text(page, "dialog .done code")) !== secret, "the same secret");
    await press(page.locator("dialog"), "Close");
    const revoke = page.getByRole("form", { name: "A token to revoke" });
    await revoke.getByLabel("Token id (jti)").fill("page-2");
    await revoke.getByLabel("Issuer").fill("https://idp.shop.test");
    await press(revoke, "Revoke");
    await press(page.locator("dialog"), "Revoke");
    await page.waitForSelector("dialog .done");
    await press(page.locator("dialog"), "Close");
    must((await cluster.json(["token", "ls"])).revocations.some((it) => it.text.includes("page-2")), "it is not revoked");
  });
  await check("who does too much of something is shown", () =>
    until(async () => {
      await go(page, "overview");
      await go(page, "access");
      return /127\.0\.0\.1\s*unusual\s*‼ in force\s*requests\s*\d+ of 20/.test((await page.innerText("main")).replace(/\t/g, " "));
    }),
  );
  await check("an object of another kind is written, changed and deleted", async () => {
    await go(page, "objects");
    await page.getByRole("form", { name: "A new object" }).getByLabel("Kind").selectOption("consumers");
    await page.getByRole("form", { name: "A new object" }).getByLabel("Name").fill("page-made");
    page.expected = true;
    await press(page, "New object");
    await press(page, "Write it");
    await page.fill("#words", JSON.stringify({ name: "page-made", groups: ["page"] }));
    await press(page, "Check");
    await page.waitForSelector("#checked");
    await press(page, "Apply");
    await page.waitForSelector("main .done");
    page.expected = false;
    await press(page, "Close");
    must((await cluster.json(["consumer", "get", "page-made"])).groups[0] === "page", "not written");
    // What is gone is asked for once more, and is not there.
    page.expected = true;
    await press(page, "Delete");
    await press(page.locator("dialog"), "Delete");
    await page.waitForSelector("dialog .done");
    await press(page.locator("dialog"), "Close");
    await go(page, "objects");
    page.expected = false;
  });
  await check("two revisions stand side by side", async () => {
    await go(page, "changes");
    await page.click("main table a >> nth=0");
    await page.waitForSelector(".diff .new, .diff .gone");
  });

  await check("a spike of a route's latency is in its heat map", async () => {
    await go(page, "routes/slow");
    const before = await page.getAttribute(".heat canvas", "aria-label");
    cluster.delayMs = 1_500;
    await Promise.all(Array.from({ length: 5 }, () => cluster.request("/")));
    cluster.delayMs = 0;
    const took = await until(async () => /at most 2\.0 s/.test(await page.getAttribute(".heat canvas", "aria-label")));
    const drawn = await page.evaluate(() => {
      const canvas = document.querySelector(".heat canvas");
      // The rows of more than a second are the uppermost five.
      return canvas.getContext("2d").getImageData(0, 0, canvas.width, 5).data.some((it) => it > 0);
    });
    must(drawn, "no colour where the spike is");
    return `${took} ms; before: ${before}`;
  });
  await check(`${ROUTES} routes are sorted in less than 100 ms`, async () => {
    const names = Array.from({ length: ROUTES }, (_, at) => `{ name: many-${at}, match: { path_prefix: /many/${(at * 7919) % ROUTES} }, upstream: slow }`);
    await cluster.cli(["apply", "-f", "-", "-m", "many routes"], { input: `routes: [${names.join(", ")}]\n` });
    await go(page, "routes");
    await until(async () => /of 1,0\d\d/.test(await text(page, ".filter")));
    const took = await page.evaluate(async () => {
      const all = [];
      for (const button of document.querySelectorAll("button.sort")) {
        const from = performance.now();
        button.click();
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        all.push(performance.now() - from);
      }
      return Math.max(...all);
    });
    return within(Math.round(took), 100);
  });
  if (flags.includes("--pictures")) await pictures(operator);
  await cluster.cli(["rollback", "--previous"]);

  await check("a viewer has no action on any page", () =>
    everyPage("us-1", viewer, {}, async (seen, place) => {
      const labels = await seen.$$eval("main button, .banners button", (all) => all.map((it) => it.textContent));
      return labels.filter((it) => VERBS.some((verb) => it.startsWith(verb))).map((it) => `${place}: ${it}`);
    }),
  );
  for (const colorScheme of ["light", "dark"]) {
    await check(`axe finds nothing on any page, ${colorScheme}`, () =>
      everyPage("eu-1", operator, { colorScheme }, async (seen, place) => {
        await seen.evaluate(axe);
        const { violations } = await seen.evaluate((runOnly) => window.axe.run(document, { runOnly }), RULES);
        return violations.flatMap((it) => it.nodes.slice(0, 2).map((node) => `${place}: ${it.id}: ${node.html.slice(0, 120)}`));
      }),
    );
  }
  await check("every page fits 360 pixels", () =>
    everyPage("eu-1", operator, { viewport: { width: 360, height: 740 } }, async (seen, place) => {
      const width = await seen.evaluate(() => document.documentElement.scrollWidth);
      return width > 360 ? [`${place}: ${width} px`] : [];
    }),
  );
  await failures(page, operator);
  await check("no page has said an error", () => must(faults.length === 0, faults));
}

async function failures(page, operator) {
  const { leader } = await cluster.json(["cluster", "status"]);
  const others = ["eu-1", "us-1", "ap-1"].filter((it) => it !== leader);
  const seen = await signedIn(others[0], operator);
  await until(async () => (await text(seen, "#verdict")).includes("All 3 nodes"));
  page.expected = seen.expected = true;
  await check(`the leader killed: the verdict turns within 2 s`, async () => {
    cluster.kill(leader);
    return within(await until(async () => !(await text(seen, "#verdict")).includes("All 3 nodes")), 2_000);
  });
  await check("a node that is down is in the banner", async () => {
    await until(async () => (await text(seen, ".banners")).includes(`2 of 3 nodes answered; no answer from ${leader}`));
  });
  await check("another leads, and the verdict says what may fail now", async () => {
    const took = await until(async () => /2 of 3 nodes answer; no further voter may fail/.test(await text(seen, "#verdict")));
    return `${took} ms`;
  });
  await check("the node is back: the verdict is good again", async () => {
    cluster.restart(leader);
    return `${await until(async () => (await text(seen, "#verdict")).includes("All 3 nodes"))} ms`;
  });
  await check("the serving node is gone: the page says for how long it has been stale", async () => {
    cluster.kill(others[0]);
    await until(async () => /stale for \d+ s/.test(await text(seen, ".banners")), 10_000);
    cluster.restart(others[0]);
    return `${await until(async () => !/stale/.test(await text(seen, ".banners")))} ms until it was fresh again`;
  });
  await seen.context().close();
}

async function pictures(token) {
  const dir = join(import.meta.dirname, "../../docs/pictures");
  mkdirSync(dir, { recursive: true });
  for (const [name, place, colorScheme] of [["overview", "overview", "light"], ["route", "routes/slow", "light"]]) {
    const seen = await signedIn("eu-1", token, { colorScheme, viewport: { width: 1180, height: 760 } });
    await go(seen, place);
    await seen.waitForTimeout(1_500);
    writeFileSync(join(dir, `${name}.png`), await seen.screenshot());
    await seen.context().close();
  }
  console.log("  pictures written to docs/pictures/");
}

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => (cluster.stop(), process.exit(130)));
}
try {
  await run();
} catch (error) {
  failed++;
  console.error(error);
} finally {
  await browser?.close();
  cluster.stop();
}
console.log(failed ? `\n${failed} checks failed` : "\nall checks held");
process.exit(failed ? 1 : 0);
