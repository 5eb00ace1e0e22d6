/**
 * GRACE against the authors' adapter (tools/fixtures/grace.py): keys, values and radii after each edit of a chain
 * that meets all rules of the codebook, and the edited model's logits; then the rules in the plane, and what an
 * edit leaves alone.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { mapRows } from "../../editors/beside/map_rows.ts";
import { applyEdit, type Edit } from "../../editors/edit.ts";
import {
  editGrace,
  grace,
  type GraceEntry,
  type GraceHparams,
  graceRule,
  graceSchema,
} from "../../editors/grace.ts";
import { additionsOn } from "../../engine/models/additions/lay.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { loadModel } from "../../engine/models/load.ts";
import { requestStates } from "../../evaluation/state.ts";
import { atlasFolder } from "../../atlas/mod.ts";
import { applyPatch, type Patch, patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { writePeft } from "../../patches/peft.ts";
import { partsOf, stackPatches, withoutParts } from "../../patches/stack.ts";
import { inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { logitsOf, modelFolder } from "../patches/_models.ts";
import { withGpu } from "../_gpu.ts";
import { besideFixture } from "./_beside.ts";

/** f32 on both sides. Adam makes more of it where a gradient is almost zero, so values are compared by norm. */
const PARITY = 1e-4;

for (const name of ["grace-gpt2-all", "grace-llama-prompt", "grace-gpt2-last-average"]) {
  Deno.test(
    `GRACE is the authors': ${name}`,
    withGpu(async (gpu) => {
      const { spec, want } = await besideFixture(name);
      using model = await loadModel(gpu, modelFolder(spec.model), { tokenizer: false });
      const hparams = graceSchema.parse({ layers: [spec.layer], ...spec.hparams });
      const close = (what: string, got: ArrayLike<number>, name: string) => {
        const error = relativeError(got, want.get(name)!);
        assert.ok(error < PARITY, `${what} is off by ${error.toExponential(2)}`);
      };
      using laid = new DisposableStack();
      for (const [i, { prompt, target, losses }] of spec.edits.entries()) {
        const made = await editGrace(model, [{ prompt, target }], { hparams });
        laid.use(applyEdit(model, made));
        const [book] = additionsOn(model);
        for (const part of ["keys", "values", "radius"]) {
          close(`${part} after edit ${i}`, book.tensors.get(part)!.values, `${i}.${part}`);
        }
        const error = relativeError(made.outcomes[0].losses.map(({ nll }) => nll).slice(0, -1), losses);
        assert.ok(error < PARITY, `The losses of edit ${i} are off by ${error.toExponential(2)}`);
      }
      close("logits", await logitsOf(model, spec.probes), "logits");
    }),
  );
}

const at = (...key: number[]) => Float32Array.from(key);
const HOW = { eps: 1, eps_expand: "coverage" } as Pick<GraceHparams, "eps" | "eps_expand">;

Deno.test("the codebook's rules in the plane: beyond both balls new, another label splits, the same one grows", () => {
  const book: GraceEntry[] = [];
  const add = (query: Float32Array, label: number[]) => graceRule(book, { query, label, value: at(0) }, HOW);
  assert.deepEqual(add(at(0, 0), [1]).map(({ radius }) => radius), [1]);
  // 3 is beyond 1 + 1.
  assert.equal(add(at(3, 0), [2]).length, 1);
  assert.equal(book.length, 2);
  // 1.5 from the first, within 1 + 1, its label: no new entry, the ball reaches there.
  const [grown] = add(at(0, 1.5), [1]);
  assert.equal(book.length, 2);
  assert.ok(grown === book[0] && grown.radius >= 1.5 && grown.radius < 1.50001);
  // Within the ball and with its label: nothing but the value changes.
  add(at(0, 0.5), [1]);
  assert.ok(book.length === 2 && book[0].radius < 1.50001);
  // 1.2 from the first with another label: two balls of half of it, the old one a hair smaller.
  const [fresh, near] = add(at(0, 1.2), [7]);
  assert.ok(near === book[0] && fresh === book[2]);
  assert.ok(Math.abs(fresh.radius - 0.6) < 1e-6 && Math.abs(near.radius - (0.6 - 1e-5)) < 1e-6);
  // Equal means of ids are no equal labels: [1, 3] and [2, 2].
  book.splice(0);
  add(at(0, 0), [1, 3]);
  add(at(1, 0), [2, 2]);
  assert.equal(book.length, 2);
  assert.deepEqual([...new Set(book.map(({ id }) => id))].length, 2);
});

Deno.test("an entry that meets its label again moves half of the way with eps_expand=moving_average", () => {
  const book: GraceEntry[] = [];
  const how = { ...HOW, eps_expand: "moving_average" as const };
  graceRule(book, { query: at(0, 0), label: [1], value: at(0) }, how);
  const [{ id }] = book;
  graceRule(book, { query: at(0, 1.5), label: [1], value: at(0) }, how);
  assert.deepEqual([...book[0].key], [0, 0.75]);
  assert.equal(book[0].id, id);
});

const REQUESTS = [
  { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris" },
  { prompt: "The first language of {} is", subject: "Danielle Darrieux", target: "English" },
];
const QUICK = { layers: [4], eps: 4, n_iter: 40, replacement: "replace_last", stop_loss: 0.02 };

Deno.test(
  "GRACE edits two facts of atlas at once; patches of it stack, come off, and are refused as weights",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const { hparams } = grace.parse(QUICK, "The test");
    const weights = await fingerprint(model);
    const before = (await requestStates(model, REQUESTS)).map(({ generation }) => generation);
    const both = await grace.run(model, REQUESTS, { hparams });
    assert.equal(await fingerprint(model), weights);
    const said = async (edit: Pick<Edit, "deltas" | "additions">) => {
      using _laid = applyEdit(model, edit);
      return (await requestStates(model, REQUESTS)).map(({ generation }) => generation);
    };
    const takes = (texts: string[]) => texts.map((text, i) => text.startsWith(` ${REQUESTS[i].target}`));
    assert.deepEqual(takes(before), [false, false]);
    assert.deepEqual(takes(await said(both)), [true, true]);

    const single: Patch[] = [];
    for (const request of REQUESTS) {
      single.push(await patchOf(model, await grace.run(model, [request], { hparams })));
    }
    await inFolder(async (folder) => {
      const stack = stackPatches(single);
      const [file, one] = [join(folder, "stack"), join(folder, "one")];
      await writePatch(file, stack);
      await writePatch(one, single[1]);
      const read = await readPatch(file);
      {
        using _laid = applyPatch(model, read);
        assert.equal(additionsOn(model)[0].entries.length, 2);
        const texts = (await requestStates(model, REQUESTS)).map(({ generation }) => generation);
        assert.deepEqual(takes(texts), [true, true]);
      }
      assert.equal(await fingerprint(model), weights);
      assert.deepEqual(partsOf(read).map(({ additions }) => additions?.length), [1, 1]);
      await writePatch(join(folder, "left"), withoutParts(read, [1]));
      assert.deepEqual(await Deno.readFile(join(folder, "left")), await Deno.readFile(one));
      await assert.rejects(
        writePeft(join(folder, "peft"), read),
        /codebook beside the weights.*cannot become a PEFT/s,
      );
    });
  }),
);

Deno.test(
  "an edit with GRACE changes no earlier value and holds only what it changed",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const { hparams } = grace.parse({ ...QUICK, n_iter: 4, eps: 0.5 }, "The test");
    const first = await grace.run(model, [REQUESTS[0]], { hparams });
    using _first = applyEdit(model, first);
    const second = await grace.run(model, [REQUESTS[1]], { hparams });
    assert.equal(second.additions![0].entries.length, 1);
    using _second = applyEdit(model, second);
    const [book] = additionsOn(model);
    const { width } = model.dims;
    const values = book.tensors.get("values")!.values;
    assert.deepEqual(values.subarray(0, width), first.additions![0].tensors.get("values")!.values);
    // The key is the map's input at the prompt's last token.
    const ids = model.tokenizer.encode("Giovanni Lanfranco met death in");
    const { inputs } = await mapRows(model, "layer.4.mlp.down", [{ ids, positions: [ids.length - 1] }]);
    assert.deepEqual(book.tensors.get("keys")!.values.subarray(0, inputs[0].length), inputs[0]);
  }),
);
