// The steps of scripts/interop-oidc: a provider, a gateway of one node, a browser as small as this needs.
import { spawn, execFileSync } from 'node:child_process';
import { createHash, generateKeyPairSync, randomUUID } from 'node:crypto';
import { appendFileSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { Provider } from 'oidc-provider';

const [binary, rotationsText, chromiumPath] = process.argv.slice(2);
const ROTATIONS = Number(rotationsText);
const BETWEEN_ROTATIONS_MS = 31_000;
const PATIENCE_MS = 30_000;
const children = [];
let failed = 0;

const say = (mark, what, figure = '') => console.log(`${mark} ${what.padEnd(66)} ${figure}`.trimEnd());
const holds = (what, figure) => say('√', what, figure);
const ensure = (it, why) => { if (!it) throw new Error(why); };
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
async function until(what, look) {
  const ends = Date.now() + PATIENCE_MS;
  for (let why = ''; ; await sleep(50)) {
    try { const found = await look(); if (found) return found; } catch (error) { why = `: ${error.message}`; }
    if (Date.now() > ends) throw new Error(`never: ${what}${why}`);
  }
}
const listen = (server) => new Promise((done) => server.listen(0, '127.0.0.1', () => done(server.address().port)));
async function freePort() {
  const server = net.createServer();
  const port = await listen(server);
  await new Promise((done) => server.close(done));
  return port;
}

/** One request; never follows a redirect. */
function ask(url, { method = 'GET', headers = {}, body } = {}) {
  return new Promise((done, fail) => {
    const way = url.startsWith('https:') ? https : http;
    // The admin listener's certificate is of the cluster's own CA.
    const request = way.request(url, { method, headers, agent: false, rejectUnauthorized: false }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => done({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts).toString() }));
    });
    request.on('error', fail);
    request.setTimeout(PATIENCE_MS, () => request.destroy(new Error(`no answer from ${url}`)));
    request.end(body);
  });
}
const form = (pairs) => new URLSearchParams(pairs).toString();
const FORM = { 'content-type': 'application/x-www-form-urlencoded' };
const basic = (id, secret) => ({ authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}` });

/** Cookies by host and name, and redirects followed by hand: what a person sees of a sign-in. */
class Browser {
  jar = new Map();
  async go(url, options = {}) {
    const { host } = new URL(url);
    const cookies = [...(this.jar.get(host) ?? new Map())].map(([name, value]) => `${name}=${value}`).join('; ');
    const headers = { accept: 'text/html', ...(cookies && { cookie: cookies }), ...options.headers };
    const answer = await ask(url, { ...options, headers });
    for (const set of answer.headers['set-cookie'] ?? []) {
      const [, name, value] = set.match(/^([^=]+)=([^;]*)/);
      if (!this.jar.has(host)) this.jar.set(host, new Map());
      if (/max-age=0|expires=Thu, 01 Jan 1970/i.test(set)) this.jar.get(host).delete(name);
      else this.jar.get(host).set(name, value);
    }
    return { ...answer, url };
  }
  /** Follows redirects and fills in the provider's forms. */
  async visit(url) {
    const seen = [];
    let answer = await this.go(url);
    for (let step = 0; step < 20; step += 1) {
      seen.push(answer.url);
      if (answer.headers.location) {
        answer = await this.go(new URL(answer.headers.location, answer.url).href);
      } else if (/name="prompt" value="login"/.test(answer.body)) {
        answer = await this.post(answer, { prompt: 'login', login: 'ann', password: 'secret' });
      } else if (/name="prompt" value="consent"/.test(answer.body)) {
        answer = await this.post(answer, { prompt: 'consent' });
      } else return { ...answer, seen };
    }
    throw new Error(`too many steps: ${seen.join(' ')}`);
  }
  post(page, pairs) {
    const [, action] = page.body.match(/<form[^>]*action="([^"]+)"/);
    return this.go(new URL(action, page.url).href, { method: 'POST', headers: FORM, body: form(pairs) });
  }
}

/** A person at a real browser: what it makes of cookies, redirects and forms is its own affair. */
async function inChromium(gateway, issuer) {
  const { chromium } = await import('playwright-core');
  const browser = await chromium.launch({ executablePath: chromiumPath, args: ['--no-sandbox'] });
  try {
    const context = await browser.newContext();
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    const requested = [];
    page.on('request', (request) => request.isNavigationRequest() && requested.push(request.url()));
    await page.goto(`${gateway}/orders?page=3`);
    await page.fill('input[name=login]', 'bea');
    await page.fill('input[name=password]', 'secret');
    await page.click('button[type=submit]');
    await page.click('button[type=submit]');
    await page.waitForURL(`${gateway}/orders?page=3`);
    const upstreamSaw = JSON.parse(await page.innerText('body'));
    ensure(upstreamSaw.headers['x-credential-id'] === 'bea', JSON.stringify(upstreamSaw));
    ensure(!JSON.stringify(upstreamSaw).includes('__Host'), 'the session went on to the upstream');
    const authorization = new URL(requested.find((url) => url.startsWith(`${issuer}/auth?`)));
    ensure(authorization.searchParams.get('code_challenge_method') === 'S256', 'no PKCE');
    const [session] = (await context.cookies()).filter((cookie) => cookie.name.startsWith('__Host-qg-'));
    ensure(session?.secure && session.httpOnly && session.sameSite === 'Lax' && session.path === '/', JSON.stringify(session));
    const seen = await page.evaluate(() => document.cookie);
    ensure(!seen.includes('__Host'), 'a script of the page sees the session');
    // A script of the page is told 401 without a session, and is not sent away.
    const other = await (await browser.newContext()).newPage();
    await other.goto(`${gateway}/open`);
    const status = await other.evaluate(() => fetch('/orders', { redirect: 'manual' }).then((it) => it.status));
    ensure(status === 401, `a script without a session is answered ${status}`);
    await page.goto(`${gateway}/logout`);
    ensure(page.url().startsWith(`${issuer}/session/end`), page.url());
    const cookie = `${session.name}=${session.value}`;
    const refused = await ask(`${gateway}/orders`, { headers: { cookie } });
    ensure(refused.status === 401 && refused.body.includes('token_revoked'), `${refused.status} ${refused.body}`);
    return `${browser.version()}, ${requested.length} navigations`;
  } finally {
    await browser.close();
  }
}

async function pageInChromium(admin, issuer) {
  const { chromium } = await import('playwright-core');
  const browser = await chromium.launch({ executablePath: chromiumPath, args: ['--no-sandbox'] });
  const signIn = async (page, name) => {
    await page.click('button:has-text("Sign in at")');
    await page.fill('input[name=login]', name);
    await page.fill('input[name=password]', 'secret');
    await page.click('button[type=submit]');
    await page.click('button[type=submit]');
  };
  try {
    const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    await page.goto(`${admin}/ui/#/routes`);
    await signIn(page, 'ann');
    await page.waitForSelector('main table');
    ensure(page.url() === `${admin}/ui/#/routes`, `not where one was: ${page.url()}`);
    ensure((await page.innerText('header')).includes('oidc/ann (operator)'), await page.innerText('header'));
    ensure(!(await page.evaluate(() => document.cookie)).includes('__Host'), 'a script of the page sees the session');
    await page.click('button:has-text("Sign out")');
    await page.waitForURL(`${issuer}/session/end*`);
    const guest = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
    guest.setDefaultTimeout(PATIENCE_MS);
    await guest.goto(`${admin}/ui/`);
    await signIn(guest, 'gus');
    await guest.waitForSelector('text=no rule of admin.oidc.roles');
    await guest.goto(`${admin}/ui/`);
    await guest.waitForSelector('#token');
    return browser.version();
  } finally {
    await browser.close();
  }
}

function key() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg: 'ES256', use: 'sig' };
}

async function main() {
  const ports = { proxy: await freePort(), peer: await freePort(), admin: await freePort(), telemetry: await freePort() };
  const gateway = `http://127.0.0.1:${ports.proxy}`;
  const admin = `https://127.0.0.1:${ports.admin}`;

  // The provider; a rotation puts a new one, with other keys, behind the same address and the same memory.
  let handle;
  let jwksAsked = 0;
  const idp = http.createServer((request, answer) => {
    if (request.url === '/jwks') jwksAsked += 1;
    handle(request, answer);
  });
  const issuer = `http://127.0.0.1:${await listen(idp)}`;
  const resource = {
    defaultResource: () => undefined,
    getResourceServerInfo: () => ({ scope: 'orders:read', audience: 'orders', accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'ES256' } } }),
    useGrantedResource: () => true,
    enabled: true,
  };
  let keys = [key()];
  const rotate = (next) => {
    keys = next;
    const provider = new Provider(issuer, {
      jwks: { keys },
      cookies: { keys: ['interop'] },
      clients: [
        { client_id: 'web', client_secret: 'web-secret-of-the-test', redirect_uris: [`${gateway}/callback`], response_types: ['code'],
          grant_types: ['authorization_code', 'refresh_token'], id_token_signed_response_alg: 'ES256',
          backchannel_logout_uri: `${gateway}/bye`, backchannel_logout_session_required: true },
        { client_id: 'admin', client_secret: 'admin-secret-of-the-test', redirect_uris: [`${admin}/ui/callback`], response_types: ['code'],
          grant_types: ['authorization_code'], id_token_signed_response_alg: 'ES256' },
        { client_id: 'svc', client_secret: 'svc-secret-of-the-test', id_token_signed_response_alg: 'ES256', redirect_uris: [], response_types: [], grant_types: ['client_credentials'], scope: 'orders:read' },
      ],
      scopes: ['openid', 'offline_access', 'orders:read', 'groups'],
      claims: { openid: ['sub'], groups: ['groups'] },
      // The ID token says them, and not the userinfo endpoint alone.
      conformIdTokenClaims: false,
      findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: id === 'ann' ? ['shop', 'ops'] : ['guests'] }) }),
      pkce: { required: () => true },
      // The package's own refuses loopback addresses, as a provider on the open network should.
      fetch: (url, { dispatcher, ...options }) => fetch(url, options),
      ttl: { AccessToken: 600, IdToken: 600, Session: 3600, Grant: 3600, Interaction: 600, RefreshToken: 3600, ClientCredentials: 600 },
      features: {
        devInteractions: { enabled: true }, introspection: { enabled: true, allowedPolicy: () => true }, revocation: { enabled: true },
        clientCredentials: { enabled: true }, backchannelLogout: { enabled: true }, resourceIndicators: resource,
        rpInitiatedLogout: { enabled: true },
      },
    });
    provider.on('server_error', (_, error) => say('×', `the provider: ${error.stack ?? error}`));
    provider.on('backchannel.error', (_, error) => say('×', `the provider's back channel: ${error.stack ?? error} ${error.cause}`));
    handle = provider.callback();
  };
  const warn = console.warn, info = console.info;
  console.warn = console.info = () => {};
  rotate(keys);
  console.warn = warn; console.info = info;

  const upstream = http.createServer((request, answer) => {
    answer.end(JSON.stringify({ path: request.url, headers: request.headers }));
  });
  const upstreamPort = await listen(upstream);

  // The gateway.
  mkdirSync('node');
  const listens = Object.entries(ports).flatMap(([name, port]) => [`--${name}-listen`, `127.0.0.1:${port}`]);
  execFileSync(binary, ['init', '--name', 'n1', '--region', 'eu', '--data-dir', 'node', '--max-rtt', '20ms', ...listens], { stdio: ['ignore', 'pipe', 'pipe'] });
  writeFileSync('admin.txt', 'admin-secret-of-the-test');
  appendFileSync('node/settings.toml', `
[admin.oidc]
issuer = "${issuer}"
client_id = "admin"
client_secret_file = "admin.txt"
scopes = ["openid", "groups"]
allow_private = true
[[admin.oidc.roles]]
role = "operator"
claim = "groups"
value = "ops"
`);
  const log = openSync('node.log', 'a');
  const daemon = spawn(binary, ['run', '--data-dir', 'node', '--proxy-workers', '1'], { stdio: ['ignore', log, log] });
  children.push(daemon);
  const cli = (...args) => execFileSync(binary, ['--endpoint', 'unix:node/admin.sock', ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  await until('the gateway is ready', () => ask(`http://127.0.0.1:${ports.telemetry}/readyz`).then((it) => it.status === 200));
  writeFileSync('web.txt', 'web-secret-of-the-test');
  writeFileSync('svc.txt', 'svc-secret-of-the-test');
  writeFileSync('gateway.yaml', `
upstreams: [{ name: u, targets: ["127.0.0.1:${upstreamPort}"] }]
auth:
  - { name: idp, jwt: { issuer: "${issuer}", audience: [orders], algorithms: [ES256], discovery: true, typ: at+jwt, allow_private: true } }
  - { name: opaque, introspection: { endpoint: "${issuer}/token/introspection", client_id: svc, client_secret_file: svc.txt, cache: 1s, allow_private: true } }
  - { name: login, oidc_login: { issuer: "${issuer}", client_id: web, client_secret_file: web.txt, scopes: [openid], allow_private: true } }
routes:
  - { name: api, match: { path_prefix: /api }, upstream: u, auth: { any_of: [idp] }, authorize: [{ allow: { scopes_all: ["orders:read"] } }] }
  - { name: opaque, match: { path_prefix: /opaque }, upstream: u, auth: { any_of: [opaque] } }
  - { name: web, match: { path_prefix: / }, upstream: u, auth: { any_of: [login] } }
  - { name: open, match: { path_exact: /open }, respond: { body: "<!doctype html><title>open</title>", headers: { content-type: text/html } } }
  - { name: bye, match: { path_exact: /bye }, respond: { receiver: backchannel_logout, auth: login } }
`);
  cli('apply', '-f', 'gateway.yaml');

  const token = async (pairs) => {
    const answer = await ask(`${issuer}/token`, { method: 'POST', headers: { ...FORM, ...basic('svc', 'svc-secret-of-the-test') }, body: form({ grant_type: 'client_credentials', ...pairs }) });
    ensure(answer.status === 200, `no token: ${answer.status} ${answer.body}`);
    return JSON.parse(answer.body).access_token;
  };
  const jwt = () => token({ scope: 'orders:read', resource: 'https://orders.test' });
  const show = (path, bearer) => ask(`${gateway}${path}`, { headers: { authorization: `Bearer ${bearer}` } });

  // Discovery.
  const first = await jwt();
  await until('a token of the provider is taken', () => show('/api', first).then((it) => { ensure(it.status === 200, it.body); return true; }));
  const began = performance.now();
  const answer = await show('/api', await jwt());
  holds('discovery: a JWT access token is taken by keys that were found', `${answer.status}`);
  const wrong = `${first.slice(0, -6)}AAAAAA`;
  ensure((await show('/api', wrong)).status === 401, 'a broken signature is taken');

  // Introspection.
  const opaque = await token({});
  ensure(!opaque.includes('.'), 'the token is not opaque');
  const taken = await show('/opaque', opaque);
  ensure(taken.status === 200, `an opaque token is refused: ${taken.status} ${taken.body}`);
  await ask(`${issuer}/token/revocation`, { method: 'POST', headers: { ...FORM, ...basic('svc', 'svc-secret-of-the-test') }, body: form({ token: opaque }) });
  const revokedAt = performance.now();
  await until('a token that the provider revoked is refused', () => show('/opaque', opaque).then((it) => it.status === 401));
  holds('introspection: an opaque token, and its end after the provider revoked it', `${Math.round(performance.now() - revokedAt)} ms (cache 1 s)`);

  // A browser.
  const browser = new Browser();
  const page = await browser.visit(`${gateway}/orders?page=2`);
  ensure(page.status === 200 && page.url === `${gateway}/orders?page=2`, `no page after the sign-in: ${page.status} ${page.url} ${page.body.slice(0, 300)}`);
  const upstreamSaw = JSON.parse(page.body);
  ensure(upstreamSaw.headers['x-credential-id'] === 'ann' && !JSON.stringify(upstreamSaw).includes('__Host'), page.body);
  const authorization = new URL(page.seen.find((url) => url.startsWith(`${issuer}/auth?`)));
  ensure(authorization.searchParams.get('code_challenge_method') === 'S256', 'no PKCE');
  const callback = new URL(page.seen.find((url) => url.startsWith(`${gateway}/callback`)));
  ensure(callback.searchParams.get('iss') === issuer, 'the provider does not say its issuer');
  holds('login: code, PKCE S256, state, nonce and iss; back on the page asked for', `${page.seen.length} steps`);
  const program = await ask(`${gateway}/orders`);
  ensure(program.status === 401 && !program.headers.location, `a program is sent away: ${program.status}`);
  holds('login: a program without a session is told 401, and not sent away', `${program.status}`);

  if (chromiumPath) {
    holds('login: headless Chromium signs in, keeps the session from scripts, signs out', await inChromium(gateway, issuer));
  } else {
    say('-', 'login: headless Chromium is SKIPPED, since it is not installed');
  }

  // People of the admin API.
  const person = new Browser();
  const shown = await person.visit(`${admin}/ui/login`);
  ensure(shown.status === 200 && shown.url === `${admin}/ui/`, `not on the page: ${shown.status} ${shown.url} ${shown.body.slice(0, 300)}`);
  const session = (it) => [...it.jar.get(new URL(admin).host)].map(([name, value]) => `${name}=${value}`).join('; ');
  const whoami = (headers) => ask(`${admin}/api/v1/whoami`, { headers: { cookie: session(person), ...headers } });
  const known = JSON.parse((await whoami({ 'quorumgate-page': '1' })).body);
  ensure(known.name === 'oidc/ann' && known.role === 'operator', JSON.stringify(known));
  const crossed = await whoami({ 'quorumgate-page': '1', origin: 'https://evil.test' });
  ensure(crossed.status === 403 && (await whoami({})).status === 403, `another site is answered ${crossed.status}`);
  holds('admin API: a person signs in, is an operator by a group, from this page alone', `${shown.seen.length} steps`);
  if (chromiumPath) holds('admin API: the web page in headless Chromium, in and out; a guest has no role', await pageInChromium(admin, issuer));
  const leaving = await ask(`${admin}/ui/logout`, { method: 'POST', headers: { cookie: session(person), 'quorumgate-page': '1' } });
  ensure(JSON.parse(leaving.body).everywhere && (await whoami({ 'quorumgate-page': '1' })).status === 401, `signed out: ${leaving.status} ${leaving.body}`);
  holds('admin API: who signs out is out, with a copy of the cookie too', `${leaving.status}`);

  // Back-channel logout: the person signs out at the provider, which tells the gateway.
  const elsewhere = new Browser();
  elsewhere.jar = new Map([...browser.jar].map(([host, jar]) => [host, new Map(jar)]));
  const confirm = await browser.go(`${issuer}/session/end?client_id=web`);
  const xsrf = confirm.body.match(/name="xsrf" value="([^"]+)"/);
  ensure(xsrf, `no sign-out page: ${confirm.status} ${confirm.body.slice(0, 300)}`);
  const [, action] = confirm.body.match(/<form[^>]*action="([^"]+)"/);
  const left = performance.now();
  await browser.go(new URL(action, issuer).href, { method: 'POST', headers: FORM, body: form({ xsrf: xsrf[1], logout: 'yes' }) });
  const cookie = [...elsewhere.jar.get(new URL(gateway).host)].map(([name, value]) => `${name}=${value}`).join('; ');
  const refused = await until('the session is over at the gateway', () =>
    ask(`${gateway}/orders`, { headers: { cookie } }).then((it) => it.status === 401 && it));
  ensure(refused.body.includes('token_revoked'), refused.body);
  holds('back-channel logout: the session is refused by the gateway', `${Math.round(performance.now() - left)} ms`);

  // Rotations: the new key signs at once, and the old one stays listed for the tokens that it signed.
  const counts = { asked: 0, refused: 0, slowest: 0 };
  const before = jwksAsked;
  const old = await jwt();
  for (let round = 0; round <= ROTATIONS; round += 1) {
    if (round > 0) { console.warn = console.info = () => {}; rotate([key(), keys[0]]); console.warn = warn; console.info = info; }
    const ends = Date.now() + (round < ROTATIONS ? BETWEEN_ROTATIONS_MS : 2_000);
    while (Date.now() < ends) {
      const fresh = await jwt();
      const asked = performance.now();
      const answers = await Promise.all(Array.from({ length: 8 }, () => show('/api', fresh)));
      counts.slowest = Math.max(counts.slowest, performance.now() - asked);
      counts.asked += answers.length;
      counts.refused += answers.filter((it) => it.status !== 200).length;
      await sleep(20);
    }
    if (round === 1) ensure((await show('/api', old)).status === 200, 'a token of the key before is refused');
  }
  ensure(counts.refused === 0, `${counts.refused} of ${counts.asked} requests were refused`);
  holds(`${ROTATIONS} key rotations ${BETWEEN_ROTATIONS_MS / 1000} s apart: ${counts.asked} requests, not one refused`,
    `slowest ${Math.round(counts.slowest)} ms, keys fetched ${jwksAsked - before} ×`);
  idp.close(); upstream.close();
}

try {
  await main();
} catch (error) {
  failed = 1;
  say('×', error.stack ?? String(error));
  try { console.error(readFileSync('node.log', 'utf8').split('\n').slice(-30).join('\n')); } catch { /* it never ran */ }
} finally {
  children.forEach((child) => child.kill('SIGTERM'));
}
process.exit(failed);
