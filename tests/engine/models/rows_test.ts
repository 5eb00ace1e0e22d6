/**
 * What editing relies on: the last rows over cached keys are the full forward, a shared prefix is a prefix of
 * each, and a hook that puts back what it read changes no bit.
 */
import { deepStrictEqual, throws } from "node:assert/strict";
import { finalNorm, forward, type Model, type Span, weight } from "../../../engine/models/model.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { createCache, packRows, type Rows, selectRows, type Sequence } from "../../../engine/models/rows.ts";
import type { Hook, Site } from "../../../engine/models/sites.ts";
import { type Ctx, Tape } from "../../../engine/ops/context.ts";
import { copy } from "../../../engine/ops/elementwise.ts";
import { capture } from "../../../engine/ops/rows.ts";
import { logits } from "../../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { readF32, readTensors } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";
import { logitsOf, modelFolder } from "../../patches/_models.ts";
import { assertClose } from "../ops/_reference.ts";

const MODELS = ["gpt2-tiny", "llama-tiny", "mistral-tiny"];

/**
 * Two ways to the same logits of order 1 differ by their roundings only: sums of 97 or fewer terms through
 * three layers, each 2⁻²⁴·√97 = 6e-7.
 */
const ROUNDING = 5e-6;

const A = [5, 17, 60, 2, 44, 90, 31, 8, 9, 10];
const B = [5, 17, 60, 2, 3, 71];
const C = [80, 1, 33];

/** Records a forward into a kept tensor of logits, and runs it. */
async function run(model: Model, rows: Rows, span: Span = {}): Promise<Float32Array> {
  const { gpu, dims } = model;
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const h = finalNorm(ctx, model, forward(ctx, model, rows, span), span.hooks);
  const kept = createTensor(gpu, "logits", [h.shape[0], dims.vocab]);
  copy(ctx, logits(ctx, h, weight(model, "head")), kept);
  using plan = ctx.r.finish("rows test");
  plan.run();
  const values = await readF32(gpu, kept);
  freeTensor(gpu, kept);
  return values;
}

const cacheOf = (model: Model, slots: number, from = 0) =>
  createCache(model.gpu, {
    ...{ layers: model.dims.layers, from, slots },
    width: model.dims.kvHeads * model.dims.headDim,
  });

/** Rows of logits of the given sequences from their first live position on. */
function lastRows(all: Float32Array, vocab: number, sequences: Sequence[]): Float32Array {
  let start = 0;
  const parts = sequences.map(({ ids, from = 0 }) => {
    const part = all.slice((start + from) * vocab, (start + ids.length) * vocab);
    start += ids.length;
    return [...part];
  });
  return Float32Array.from(parts.flat());
}

const each = (name: string, body: (model: Model) => Promise<void>) =>
  MODELS.forEach((which) =>
    Deno.test(
      `${name} on ${which}`,
      withGpu(async (gpu) => {
        using model = await loadModel(gpu, modelFolder(which), { tokenizer: false });
        await body(model);
      }),
    )
  );

each("the last rows over cached keys equal a full forward", async (model) => {
  const packing = { cached: true, windows: model.dims.windows };
  const { gpu, dims } = model;
  const sequences = [{ ids: A, slot: 2, from: 7 }, { ids: B, slot: 15, from: 5 }, { ids: C, slot: 12 }];
  using cache = cacheOf(model, 22);
  using prefixes = packRows(
    gpu,
    [{ ids: A.slice(0, 7), slot: 2 }, { ids: B.slice(0, 5), slot: 15 }],
    packing,
  );
  await run(model, prefixes, { cache });
  using live = packRows(gpu, sequences, packing);
  const got = await run(model, live, { cache });
  assertClose(got, lastRows(await logitsOf(model, [A, B, C]), dims.vocab, sequences), ROUNDING, "logits");
});

each("a span from a layer on equals the rest of a full forward", async (model) => {
  const { gpu, dims } = model;
  const from = 1;
  const full = await logitsOf(model, [A, C]);
  const packing = { windows: dims.windows };
  using rows = packRows(gpu, [{ ids: A }, { ids: C }], packing);
  const input = createTensor(gpu, "stream", [rows.count, dims.width]);
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  capture(ctx, forward(ctx, model, rows, { to: from }), undefined, input);
  using plan = ctx.r.finish("first layers");
  plan.run();
  assertClose(await run(model, rows, { from, input }), full, ROUNDING, "span");

  // The same with the keys of the layers above in a cache that has no stores below.
  using cache = cacheOf(model, rows.count, from);
  using cached = packRows(gpu, [{ ids: A }, { ids: C, slot: A.length }], { ...packing, cached: true });
  assertClose(await run(model, cached, { from, input, cache }), full, ROUNDING, "span over a cache");
  throws(() => forward(ctx, model, rows, { from }), /A span from layer 1 needs its input/);
  freeTensor(gpu, input);
});

each("a shared prefix equals a prefix of each", async (model) => {
  const { gpu, dims } = model;
  const packing = { cached: true, windows: dims.windows };
  const count = 4;
  const prefix = { slot: 3, count };
  // Slots 3…6 are shared; each sequence's own slots follow on with its position 4.
  const sequences = [
    { ids: A, from: count, slot: 7, prefix },
    { ids: B, from: count, slot: 20, prefix },
    { ids: C, slot: 25 },
  ];
  using cache = cacheOf(model, 28);
  using shared = packRows(gpu, [{ ids: A.slice(0, count), slot: 3 }], packing);
  await run(model, shared, { cache });
  using live = packRows(gpu, sequences, packing);
  const got = await run(model, live, { cache });
  assertClose(got, lastRows(await logitsOf(model, [A, B, C]), dims.vocab, sequences), ROUNDING, "logits");
});

each("a prefix among live rows equals a prefix of each, with and without a selection", async (model) => {
  const { gpu, dims } = model;
  const packing = { windows: dims.windows };
  const count = 4;
  // C first, so that the shared rows do not start at 0; A's own rows come between B's prefix and B.
  const sequences = [{ ids: C }, { ids: A }, { ids: B, from: count, prefix: { slot: C.length, count } }];
  const full = await logitsOf(model, [C, A, B]);
  const tail = C.length + A.length + count;
  const expected = [
    ...full.subarray(0, (C.length + A.length) * dims.vocab),
    ...full.subarray(tail * dims.vocab),
  ];
  using rows = packRows(gpu, sequences, packing);
  assertClose(await run(model, rows), expected, ROUNDING, "all rows");
  const chosen = [2, 6, 9, 13, rows.count - 1];
  using select = selectRows(gpu, rows, chosen, sequences, packing);
  const wanted = chosen.flatMap((row) => expected.slice(row * dims.vocab, (row + 1) * dims.vocab));
  assertClose(await run(model, rows, { select }), wanted, ROUNDING, "selected rows");

  const tape = new Tape();
  const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
  const require: Hook = (_, h) => (tape.require(h), h);
  const backward = () => forward(ctx, model, rows, { hooks: new Map([["layer.0.in", require]]) });
  throws(backward, /Attention over rows that live sequences share has no gradient/);
});

each("selected rows equal the same rows of a full forward", async (model) => {
  const { gpu, dims } = model;
  const sequences = [{ ids: A }, { ids: B }, { ids: C }];
  const full = await logitsOf(model, [A, B, C]);
  for (const chosen of [[0], [3, 9, 11], [9, 15, 18], [10, 11, 12, 13, 14, 15]]) {
    const wanted = chosen.flatMap((row) => [...full.subarray(row * dims.vocab, (row + 1) * dims.vocab)]);
    const packing = { windows: dims.windows };
    using rows = packRows(gpu, sequences, packing);
    using select = selectRows(gpu, rows, chosen, sequences, packing);
    assertClose(await run(model, rows, { select }), wanted, ROUNDING, `rows ${chosen}`);

    const slots = [{ ids: A, slot: 1 }, { ids: B, slot: 11 }, { ids: C, slot: 17 }];
    using cache = cacheOf(model, 20);
    using cached = packRows(gpu, slots, { ...packing, cached: true });
    using inCache = selectRows(gpu, cached, chosen, slots, { ...packing, cached: true });
    assertClose(await run(model, cached, { cache, select: inCache }), wanted, ROUNDING, `cached ${chosen}`);
  }
});

each("a hook that replays what it captured changes no bit", async (model) => {
  const { gpu, dims } = model;
  const sites: Site[] = ["embed", "final"];
  for (let n = 0; n < dims.layers; n++) {
    sites.push(`layer.${n}.in`, `layer.${n}.attn.out`, `layer.${n}.mlp.key`, `layer.${n}.mlp.out`);
    sites.push(`layer.${n}.out`);
  }
  using rows = packRows(gpu, [{ ids: A }, { ids: C }], { windows: dims.windows });
  const kept = new Map<Site, Tensor>();
  const reading = (site: Site): Hook => (ctx, value) => {
    const tensor = createTensor(gpu, site, value.shape);
    kept.set(site, tensor);
    capture(ctx, value, undefined, tensor);
    return value;
  };
  const first = await run(model, rows, { hooks: new Map(sites.map((s) => [s, reading(s)])) });
  deepStrictEqual([...kept.keys()].toSorted(), sites.toSorted());
  const replaying = new Map(sites.map((site): [Site, Hook] => [site, () => kept.get(site)!]));
  deepStrictEqual(await run(model, rows, { hooks: replaying }), first);
  // One at a time, too: only what is read before it is then computed.
  for (const site of sites) {
    const hooks = new Map(sites.map((s): [Site, Hook] => [s, (_, v) => s === site ? kept.get(s)! : v]));
    deepStrictEqual(await run(model, rows, { hooks }), first, site);
  }
  kept.forEach((t) => freeTensor(gpu, t));
});

Deno.test(
  "packRows() places rows, slots and windows as their sequences say",
  withGpu(async (gpu) => {
    const windows = [undefined, 3, undefined];
    using rows = packRows(gpu, [{ ids: [7, 8, 9, 10], from: 2, slot: 5 }, { ids: [1, 2], slot: 0 }], {
      ...{ cached: true, windows },
    });
    deepStrictEqual(rows.count, 4);
    deepStrictEqual(rows.places, [
      { sequence: 0, position: 2 },
      { sequence: 0, position: 3 },
      { sequence: 1, position: 0 },
      { sequence: 1, position: 1 },
    ]);
    deepStrictEqual([rows.rowOf(0, 3), rows.rowOf(1, 0)], [1, 2]);
    deepStrictEqual(rows.map(0) === rows.map(2), true);
    deepStrictEqual(rows.map(0) === rows.map(1), false);
    const first = async (t: Tensor, n: number) => [...(await readTensors(gpu, t))[0]].slice(0, n);
    deepStrictEqual(await first(rows.map(0).queries, 16), [0, 0, 5, 3, 0, 0, 5, 4, 0, 0, 0, 1, 0, 0, 0, 2]);
    deepStrictEqual(await first(rows.map(1).queries, 8), [0, 0, 5, 3, 0, 0, 6, 3]);
    deepStrictEqual(await first(rows.map(0).slots!, 4), [7, 8, 0, 1]);
    deepStrictEqual(await first(rows.map(0).keys!, 8), [0, 2, 1, 2, 2, 4, 3, 4]);
    throws(() => rows.rowOf(0, 1), /Position 1 of sequence 0 is not a live row/);
  }),
);

Deno.test(
  "packRows() and selectRows() refuse what no forward can do",
  withGpu((gpu) => {
    throws(() => packRows(gpu, [{ ids: [1] }, { ids: [] }]), /Sequence 1 has no live token/);
    throws(() => packRows(gpu, [{ ids: [1, 2], from: 1 }]), /Sequence 0 needs a cache/);
    throws(() => packRows(gpu, [{ ids: [1, 2], prefix: { slot: 0, count: 1 } }]), /Sequence 0 needs a cache/);
    const tailOf = (slot: number, count: number) => () =>
      packRows(gpu, [{ ids: [1, 2] }, { ids: [3] }, {
        ids: [1, 2, 3],
        from: count,
        prefix: { slot, count },
      }]);
    throws(tailOf(1, 2), /The prefix of sequence 2 is not the start of a live sequence/);
    throws(tailOf(3, 2), /The prefix of sequence 2 is not the start of a live sequence/);
    tailOf(0, 2)()[Symbol.dispose]();
    using rows = packRows(gpu, [{ ids: [1, 2, 3] }]);
    throws(() => selectRows(gpu, rows, [2, 1], [{ ids: [1, 2, 3] }]), /Selected rows must ascend/);
  }),
);

Deno.test(
  "packRows() frees all of its tensors when it is disposed",
  withGpu((gpu) => {
    const before = gpu.memory.now;
    {
      using rows = packRows(gpu, [{ ids: [1, 2, 3] }], { windows: [undefined, 2] });
      rows.map(0);
      rows.map(1);
      rows.occurrences();
      using _select = selectRows(gpu, rows, [0, 2], [{ ids: [1, 2, 3] }], {});
    }
    deepStrictEqual(gpu.memory.now, before);
  }),
);
