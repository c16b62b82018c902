// A `demo` cluster for the page's test: its commands, its processes, and an upstream that is slow when told.
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const NAMES = ["eu-1", "us-1", "ap-1"];

export class Cluster {
  constructor(binary, portBase) {
    this.binary = binary;
    this.portBase = portBase;
    this.dir = mkdtempSync(join(tmpdir(), "quorumgate-page-"));
    this.started = [];
    this.delayMs = 0;
  }

  async start() {
    this.slow = createServer((request, response) => setTimeout(() => response.end("done\n"), this.delayMs));
    await new Promise((done) => this.slow.listen(0, "127.0.0.1", done));
    const demo = spawn(this.binary, ["demo", "--port-base", String(this.portBase), "--keep", join(this.dir, "demo")], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.started.push(demo);
    const ended = new Promise((_, failed) => demo.once("exit", (code) => failed(new Error(`demo ended with ${code}`))));
    ended.catch(() => {});
    const up = (async () => {
      for await (const line of createInterface({ input: demo.stdout })) if (line.includes("stays up until")) return;
    })();
    await Promise.race([up, ended]);
    demo.stdout.resume();
  }

  port(name, offset) {
    return this.portBase + 10 * NAMES.indexOf(name) + offset;
  }

  page(name) {
    return `https://127.0.0.1:${this.port(name, 2)}/ui/`;
  }

  /** Standard output; what is written to standard input may be given. */
  cli(words, { input = "", node = "eu-1" } = {}) {
    const socket = `unix:${join(this.dir, "demo", node, "admin.sock")}`;
    return new Promise((done, failed) => {
      const running = execFile(this.binary, ["--endpoint", socket, ...words], { maxBuffer: 1 << 26 }, (error, out, err) =>
        error ? failed(new Error(`${words.join(" ")}: ${err || error.message}`)) : done(out.trim()),
      );
      running.stdin.end(input);
    });
  }

  async json(words, options) {
    return JSON.parse(await this.cli([...words, "-o", "json"], options));
  }

  /** The process that runs this node: its command line has the node's directory, which only this test knows. */
  pid(name) {
    const dir = join(this.dir, "demo", name);
    for (const pid of readdirSync("/proc").filter((it) => /^\d+$/.test(it))) {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        if (words.includes("run") && words.includes(dir)) return Number(pid);
      } catch {
        // It has ended meanwhile.
      }
    }
    throw new Error(`${name} does not run`);
  }

  /** Milliseconds of processor time so far. */
  cpuMs(name) {
    const fields = readFileSync(`/proc/${this.pid(name)}/stat`, "utf8").split(") ").pop().split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10;
  }

  kill(name) {
    process.kill(this.pid(name), "SIGKILL");
  }

  restart(name) {
    const words = ["run", "--data-dir", join(this.dir, "demo", name), "--proxy-workers", "1"];
    this.started.push(spawn(this.binary, words, { stdio: "ignore" }));
  }

  /** Through a node; its body. (fetch would not send another Host.) */
  request(path, name = "eu-1") {
    return new Promise((done, failed) => {
      const asked = { host: "127.0.0.1", port: this.port(name, 0), path, headers: { host: "slow.test" } };
      get(asked, (response) => {
        let body = "";
        response.on("data", (it) => (body += it)).on("end", () => done(body));
      }).on("error", failed);
    });
  }

  stop() {
    this.slow?.close();
    for (const it of this.started) it.kill("SIGTERM");
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}
