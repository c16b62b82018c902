// Writes the table of the built files that the program carries, and says how large the page is.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const GZ_BYTES_MAX = 120 * 1024;
const TYPES = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  svg: "image/svg+xml",
  txt: "text/plain; charset=utf-8",
};

const ui = new URL("../node/src/admin/ui/", import.meta.url);
const dist = new URL("dist/", ui);
// What the licences of the libraries in the script ask for.
const LIBRARIES = ["preact", "@preact/signals", "@preact/signals-core", "uplot"];
const licence = (name) => `${name}\n\n${readFileSync(new URL(`node_modules/${name}/LICENSE`, import.meta.url), "utf8").trim()}\n`;
writeFileSync(new URL("licences.txt", dist), LIBRARIES.map(licence).join("\n\n"));
const paths = readdirSync(dist, { recursive: true, withFileTypes: true })
  .filter((it) => it.isFile())
  .map((it) => `${it.parentPath}/${it.name}`.slice(dist.pathname.length).replace(/^\//, ""))
  .sort();
let packed = 0;
const entries = paths.map((path) => {
  const type = TYPES[path.split(".").pop()];
  if (!type) throw new Error(`${path}: its content type is not known here`);
  packed += gzipSync(readFileSync(new URL(path, dist)), { level: 9 }).length;
  return `    File {\n        path: "${path}",\n        content_type: "${type}",\n        bytes: include_bytes!("dist/${path}"),\n    },\n`;
});
const table = `//! Written by \`scripts/dashboard build\`.\n\nuse super::File;\n\n#[rustfmt::skip]\npub const FILES: &[File] = &[\n${entries.join("")}];\n`;
writeFileSync(new URL("files.rs", ui), table);
console.log(`${paths.length} files, ${packed} bytes packed; allowed: ${GZ_BYTES_MAX}`);
if (packed > GZ_BYTES_MAX) process.exit(1);
