// Generates src/generated from proto/: `npm run generate`, or into another folder with `npm run generate -- --out DIR`.
// PYTHON names an interpreter that has grpcio-tools, whose protoc is the one that the services are generated with.
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const root = resolve(here, "../..");
const { values } = parseArgs({ options: { out: { type: "string", default: join(here, "src/generated") } } });
const out = resolve(values.out);
const python = process.env.PYTHON ?? join(root, ".venv/bin/python");
const options = [
  "env=node",
  "esModuleInterop=true",
  "exportCommonSymbols=false",
  "forceLong=bigint",
  "importSuffix=.js",
  "oneof=unions-value",
  "outputJsonMethods=false",
  "outputServices=grpc-js",
];

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const done = spawnSync(
  python,
  [
    "-m",
    "grpc_tools.protoc",
    `-I${join(root, "proto")}`,
    `--plugin=protoc-gen-ts_proto=${join(here, "node_modules/.bin/protoc-gen-ts_proto")}`,
    `--ts_proto_out=${out}`,
    `--ts_proto_opt=${options.join(",")}`,
    ...["gateway", "records"].map((name) => join(root, "proto/onlinerlhf/v1", `${name}.proto`)),
  ],
  // The plugin is a script that looks for `node`.
  { stdio: "inherit", env: { ...process.env, PATH: [dirname(process.execPath), process.env.PATH].join(delimiter) } },
);
if (done.error) {
  throw done.error;
}
process.exit(done.status ?? 1);
