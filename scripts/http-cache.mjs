// The steps of scripts/http-cache: the tests' own server, a gateway of one node before it, the tests' own client.
import { spawn, execFileSync } from 'node:child_process';
import { openSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';

const [binary] = process.argv.slice(2);
const PATIENCE_MS = 60_000;
const SUITE = 'node_modules/http-cache-tests';
const children = [];
// What RFC 9111 leaves open, or this gateway answers more strictly, with the reason.
const KNOWN = {
  'age-parse-prefix': 'an Age that is a list makes an answer stale',
  'headers-store-Set-Cookie': 'whoever sets a cookie talks to one browser: never kept',
  'headers-store-Transfer-Encoding': 'a transfer coding that nobody knows is refused with 502',
  '304-etag-update-response-ETag': 'another tag is about another answer: what was kept is let go of',
  '304-etag-update-response-Set-Cookie': 'as headers-store-Set-Cookie',
  'partial-use-headers': 'parts are not kept',
};

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
async function freePort() {
  const server = net.createServer();
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}
const answers = (url) => new Promise((done) => {
  http.get(url, { agent: false }, (answer) => { answer.resume(); done(answer.statusCode < 500); }).on('error', () => done(false));
});
async function until(what, url) {
  for (const ends = Date.now() + PATIENCE_MS; !(await answers(url)); await sleep(50)) {
    if (Date.now() > ends) throw new Error(`never: ${what}`);
  }
}

async function main() {
  const ports = { origin: await freePort(), proxy: await freePort(), peer: await freePort(), admin: await freePort(), telemetry: await freePort() };
  const settings = { npm_config_protocol: 'http', npm_config_port: String(ports.origin), npm_config_pidfile: 'server.pid' };
  const log = openSync('log.txt', 'a');
  children.push(spawn('node', ['server/server.mjs'], { cwd: SUITE, env: { ...process.env, ...settings }, stdio: ['ignore', log, log] }));
  const listens = ['proxy', 'peer', 'admin', 'telemetry'].flatMap((it) => [`--${it}-listen`, `127.0.0.1:${ports[it]}`]);
  execFileSync(binary, ['init', '--name', 'n1', '--region', 'eu', '--data-dir', 'node', '--max-rtt', '20ms', ...listens]);
  children.push(spawn(binary, ['run', '--data-dir', 'node'], { stdio: ['ignore', log, log] }));
  await until('the gateway is ready', `http://127.0.0.1:${ports.telemetry}/readyz`);
  await until('the origin is ready', `http://localhost:${ports.origin}/`);
  writeFileSync('gateway.yaml', `
upstreams: [{ name: origin, targets: ["localhost:${ports.origin}"], retries: { attempts: 0 }, outlier: { consecutive_errors: 0 } }]
routes: [{ name: all, upstream: origin, encoded_slash: preserve, cache: {} }]
`);
  execFileSync(binary, ['--endpoint', 'unix:node/admin.sock', 'apply', '-f', 'gateway.yaml']);

  const base = { npm_config_base: `http://127.0.0.1:${ports.proxy}`, npm_config_id: '', npm_package_config_id: '' };
  const text = execFileSync('node', ['--no-warnings', 'cli.mjs'], { cwd: SUITE, env: { ...process.env, ...base }, maxBuffer: 1 << 26, encoding: 'utf8' });
  const results = JSON.parse(text.slice(text.indexOf('{')));
  const { default: suites } = await import(`./${SUITE}/tests/index.mjs`);
  const counts = {};
  const failed = [];
  for (const test of suites.flatMap((suite) => suite.tests)) {
    if (test.browser_only || results[test.id] === undefined) continue;
    const kind = test.kind ?? 'required';
    counts[kind] ??= { passed: 0, untold: 0, of: 0 };
    counts[kind].of += 1;
    // A test stands on others; what hangs on one that is not passed says nothing.
    const stands = (test.depends_on ?? []).every((id) => results[id] === true);
    if (results[test.id] === true) counts[kind].passed += 1;
    else if (!stands) counts[kind].untold += 1;
    else failed.push({ kind, id: test.id, why: String(results[test.id][1] ?? results[test.id]) });
  }
  for (const kind of ['required', 'optimal', 'check']) {
    const count = counts[kind] ?? { passed: 0, untold: 0, of: 0 };
    console.log(`${kind}: ${count.passed} of ${count.of}, ${count.untold} hang on others`);
    for (const it of failed.filter((it) => it.kind === kind)) console.log(`  ${it.id}: ${KNOWN[it.id] ?? it.why}`);
  }
  return failed.some((it) => it.kind === 'required' && !(it.id in KNOWN)) ? 1 : 0;
}

let code = 1;
try {
  code = await main();
} catch (error) {
  console.error(error);
  try { console.error(readFileSync('log.txt', 'utf8').slice(-4000)); } catch { /* there is none */ }
} finally {
  for (const child of children) child.kill('SIGKILL');
}
process.exit(code);
