/** Files that are no patches, or lie: each is refused in one clear sentence. */
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "npm:fast-check@4.10.2";
import { InputError } from "../../engine/io/errors.ts";
import { readPatch } from "../../patches/patch.ts";
import { inFolder, safetensorsBytes } from "../engine/io/_data.ts";

const TENSORS = [{ name: "w", role: "layer.0.mlp.down", layout: "out_in", ranks: [0] }];
const METADATA: Record<string, string> = {
  format: "emend-patch",
  format_version: "1",
  base_hash: "ab".repeat(32),
  base_name: "m",
  model_type: "llama",
  method: "rome",
  hparams: "{}",
  requests: '[{"prompt":"{} is in","subject":"Paris","target":" Italy"}]',
  tensors: JSON.stringify(TENSORS),
  emend_version: "0.1.0",
};

interface Lie {
  metadata?: Record<string, string | undefined>;
  /** Shapes of the file's tensors. */
  shapes?: Record<string, number[]>;
  dtype?: string;
  values?: number[];
}

/** The bytes of a patch of one rank, [3, 1] and [2, 1], with some of it changed. */
function patchBytes(
  { metadata = {}, shapes = { "w.left": [3, 1], "w.right": [2, 1] }, dtype = "F32", values }: Lie,
) {
  const said = Object.fromEntries(
    Object.entries({ ...METADATA, ...metadata }).filter(([, v]) => v !== undefined),
  );
  const header: Record<string, unknown> = { __metadata__: said };
  let at = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const end = at + shape.reduce((a, b) => a * b, dtype === "F16" ? 2 : 4);
    header[name] = { dtype, shape, data_offsets: [at, end] };
    at = end;
  }
  const data = new Uint8Array(
    Float32Array.from({ length: Math.ceil(at / 4) }, (_, i) => values?.[i] ?? i).buffer,
  );
  return safetensorsBytes(header, data.subarray(0, at));
}

const tensors = (...records: unknown[]) => ({ metadata: { tensors: JSON.stringify(records) } });
const both = { "w.left": [3, 1], "w.right": [2, 1] };

const PART = {
  base_name: "m",
  method: "rome",
  hparams: {},
  requests: 1,
  tensors: [{ name: "w", rank: 1 }],
  emend_version: "0.1.0",
};
const stack = (...parts: unknown[]) => ({ metadata: { stack: JSON.stringify(parts) } });

const LIES: [what: string, lie: Lie, message: RegExp][] = [
  ["no format", { metadata: { format: undefined } }, /is not a patch: its metadata has no format$/],
  ["another format", { metadata: { format: "pt" } }, /is not a patch: its metadata has another format$/],
  [
    "a later version",
    { metadata: { format_version: "4" } },
    /in format version "4"; this emend reads 1, 2 and 3$/,
  ],
  ["no base", { metadata: { base_hash: undefined } }, /bad base_hash in its metadata/],
  [
    "a bad base",
    { metadata: { base_hash: "x" } },
    /bad base_hash in its metadata: it is not a SHA-256 in hex$/,
  ],
  ["no JSON", { metadata: { hparams: "{" } }, /bad hparams in its metadata: it is not JSON$/],
  ["hparams that are a list", { metadata: { hparams: "[]" } }, /bad hparams in its metadata/],
  [
    "a request without target",
    { metadata: { requests: '[{"prompt":"","subject":""}]' } },
    /bad requests\.0\.target/,
  ],
  ["no tensors", { metadata: { tensors: "[]" } }, /bad tensors in its metadata/],
  ["a bad layout", tensors({ ...TENSORS[0], layout: "sideways" }), /bad tensors\.0\.layout in its metadata/],
  ["no layout", tensors({ ...TENSORS[0], layout: undefined }), /tensor "w" has ranks but no layout$/],
  ["no ranks of factors", tensors({ ...TENSORS[0], ranks: undefined }), /it has no tensor "w\.delta"$/],
  ["rank 0", tensors({ ...TENSORS[0], ranks: [] }), /bad tensors\.0\.ranks in its metadata/],
  [
    "a rank too many",
    tensors({ ...TENSORS[0], ranks: [0, 0] }),
    /are \[3, 1\] and \[2, 1\]; .* lists 2 ranks$/,
  ],
  ["a request too many", tensors({ ...TENSORS[0], ranks: [1] }), /is for request 1, counted from 0, of 1$/],
  ["a tensor twice", tensors(TENSORS[0], TENSORS[0]), /lists tensor "w" \("layer\.0\.mlp\.down"\) twice$/],
  ["a role twice", tensors(TENSORS[0], { ...TENSORS[0], name: "v" }), /lists tensor "v" .* twice$/],
  ["no right factor", { shapes: { "w.left": [3, 1] } }, /it has no tensor "w\.right"$/],
  ["no left factor", { shapes: { "w.right": [2, 1] } }, /it has no tensor "w\.left"$/],
  ["a tensor unlisted", { shapes: { ...both, "v.left": [1, 1] } }, /does not list tensor "v\.left"$/],
  ["both factors and delta", { shapes: { ...both, "w.delta": [3, 2] } }, /does not list tensor "w\.delta"$/],
  ["factors that disagree", { shapes: { "w.left": [3, 1], "w.right": [1, 2] } }, /are \[3, 1\] and \[1, 2\]/],
  [
    "a vector for a factor",
    { shapes: { "w.left": [3], "w.right": [2, 1] } },
    /tensor "w\.left" is F32 \[3\]$/,
  ],
  ["another dtype", { dtype: "F16" }, /tensor "w\.left" is F16 \[3, 1\]$/],
  ["NaN", { values: [1, NaN] }, /tensor "w\.left" holds a value that is not finite$/],
  ["infinity", { values: [1, 1, 1, 1, -Infinity] }, /tensor "w\.right" holds a value that is not finite$/],
  [
    "a tensor again in another role",
    {
      metadata: { format_version: "2", tensors: JSON.stringify([TENSORS[0], { ...TENSORS[0], role: "x" }]) },
    },
    /lists tensor "w" \("x"\) twice$/,
  ],
  [
    "a tensor again without factors",
    { metadata: { format_version: "2", tensors: JSON.stringify([TENSORS[0], TENSORS[0]]) } },
    /it has no tensor "w\.left\.2"$/,
  ],
  ["a stack that is no JSON", { metadata: { stack: "[" } }, /bad stack in its metadata: it is not JSON$/],
  ["a stack of nothing", stack(), /the stack has 1 requests, its parts 0 together$/],
  ["a part without a method", stack({ ...PART, method: undefined }), /bad stack\.0\.method in its metadata/],
  ["a part with requests too many", stack({ ...PART, requests: 2 }), /1 requests, its parts 2 together$/],
  [
    "a part with ranks too many",
    stack({ ...PART, tensors: [{ name: "w", rank: 2 }] }),
    /no such change of "w" as its part says$/,
  ],
  ["a part that is dense", stack({ ...PART, tensors: [{ name: "w" }] }), /no such change of "w" as its part/],
  [
    "a part of another tensor",
    stack({ ...PART, tensors: [{ name: "v", rank: 1 }] }),
    /no such change of "v"/,
  ],
  ["a part twice", stack(PART, { ...PART, requests: 0 }), /no such change of "w" as its part says$/],
  [
    "a rank of another part's request",
    stack({ ...PART, requests: 0 }),
    /a rank of "w" is for request 0, which is another part's$/,
  ],
];

Deno.test("readPatch() reads the honest file that the lies start from", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "p");
    await Deno.writeFile(path, patchBytes({ metadata: { later: "unknown keys are ignored" } }));
    const { deltas, base, requests } = await readPatch(path);
    assert.deepEqual(base, { hash: METADATA.base_hash, name: "m" });
    assert.equal(requests[0].subject, "Paris");
    const { layout, ranks, role } = { ...TENSORS[0], layout: "out_in" as const };
    const [left, right] = [Float32Array.of(0, 1, 2), Float32Array.of(3, 4)];
    assert.deepEqual(deltas, [{ kind: "low-rank", tensor: "w", role, layout, left, right, ranks }]);
  });
});

for (const [what, lie, message] of LIES) {
  Deno.test(`readPatch() refuses a file with ${what}`, () => refused(patchBytes(lie), message));
}

async function refused(bytes: Uint8Array, message: RegExp) {
  await inFolder(async (folder) => {
    const path = join(folder, "p");
    await Deno.writeFile(path, bytes);
    await assert.rejects(readPatch(path), (error) => {
      assert.ok(error instanceof InputError, String(error));
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n|\.$/);
      return true;
    });
  });
}

Deno.test("readPatch() refuses or reads any truncated or altered file, and throws nothing else", async () => {
  const honest = patchBytes({});
  await inFolder(async (folder) => {
    const path = join(folder, "p");
    const check = async (bytes: Uint8Array) => {
      await Deno.writeFile(path, bytes);
      await readPatch(path).catch((error) => assert.ok(error instanceof InputError, String(error?.stack)));
    };
    for (let n = 0; n < honest.length; n += 7) {
      await Deno.writeFile(path, honest.subarray(0, n));
      await assert.rejects(readPatch(path), InputError);
    }
    const place = fc.nat(honest.length - 1);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 4 }),
        async (changes) => {
          const bytes = honest.slice();
          for (const [at, value] of changes) bytes[at] = value;
          await check(bytes);
        },
      ),
      { numRuns: 300, seed: 1 },
    );
  });
});
