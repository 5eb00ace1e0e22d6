/** Editors as files: what comes back is what was written, and editors for something else are refused by name. */
import { deepStrictEqual, ok, rejects, throws } from "node:assert/strict";
import { join } from "node:path";
import { applyDeltas } from "../../../editors/edit.ts";
import {
  type EditorHead,
  findEditor,
  readEditor,
  requireFit,
  writeEditor,
} from "../../../editors/hypernetworks/file.ts";
import { networkTensors, readNumbers } from "../../../editors/hypernetworks/learner.ts";
import { makeChanges } from "../../../editors/hypernetworks/make.ts";
import { mendNetwork } from "../../../editors/hypernetworks/mend_network.ts";
import { InputError } from "../../../engine/io/errors.ts";
import { withGpu } from "../../_gpu.ts";
import { inFolder } from "../../engine/io/_data.ts";
import { logitsOf } from "../../patches/_models.ts";
import { untrained } from "./_mend.ts";

const BASE = { hash: "a".repeat(64), tokenizer: "b".repeat(64), name: "tiny" };
const HEAD: EditorHead = { method: "mend", base: BASE, roles: ["layer.1.mlp.up"], shape: {}, training: {} };
const EDIT = { prompt: [5, 17, 40, 41, 8], target: [60, 25], group: 0 };

Deno.test(
  "an editor that was saved and loaded makes the same logits to the bit",
  withGpu((gpu) =>
    inFolder(async (folder) => {
      using both = await untrained(gpu);
      const { model, network } = both;
      const path = join(folder, "editor.safetensors");
      const { roles } = network;
      await writeEditor(
        path,
        { ...HEAD, roles: [...roles] },
        await readNumbers(model, networkTensors(network)),
      );
      const { head, numbers } = await readEditor(path);
      deepStrictEqual(head.roles, [...roles]);
      using again = mendNetwork(model, { roles, rank: 6, editLr: 9 }, numbers);
      const logits = [];
      for (const one of [network, again]) {
        const { deltas } = await makeChanges(model, one, [EDIT]);
        using _on = applyDeltas(model, deltas);
        logits.push(await logitsOf(model, [EDIT.prompt]));
      }
      deepStrictEqual(logits[1], logits[0]);

      // Without the normaliser's statistics it would silently do something else.
      const lacking = new Map([...numbers].filter(([name]) => !name.endsWith("u.mean")));
      throws(
        () => mendNetwork(model, { roles, rank: 6, editLr: 9 }, lacking),
        /The editor does not fit the maps that it names: its 32x128.u.mean is missing/,
      );
      throws(
        () => mendNetwork(model, { roles, rank: 5, editLr: 9 }, numbers),
        /its 32x128.0.A holds 960 f32 numbers, 800 f32 are wanted/,
      );
    })
  ),
);

Deno.test("requireFit() refuses another method, model, tokenizer and other maps, naming both", () => {
  const fit = (head: Partial<EditorHead>, wanted?: string[]) => () =>
    requireFit("e.safetensors", { ...HEAD, ...head }, BASE, "mend", wanted);
  fit({})();
  fit({}, ["layer.1.mlp.up"])();
  throws(fit({ method: "malmen" }), /e.safetensors is an editor of malmen, not of mend$/);
  throws(
    fit({ base: { ...BASE, hash: "c".repeat(64), name: "other" } }),
    /e.safetensors was trained for other \(cccccccc…\); this model is tiny \(aaaaaaaa…\)$/,
  );
  throws(
    fit({ base: { ...BASE, tokenizer: "d".repeat(64) } }),
    /trained with another tokenizer \(dddddddd…\)/,
  );
  throws(
    fit({}, ["layer.2.mlp.up"]),
    /e.safetensors edits layer.1.mlp.up; the hyper-parameters ask for layer.2.mlp.up$/,
  );
});

Deno.test("readEditor() refuses a file that is something else, or damaged", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "e.safetensors");
    await writeEditor(
      path,
      HEAD,
      new Map([["x", { shape: [2], values: Float32Array.of(1, 2) }]]),
      "training",
    );
    await rejects(readEditor(path), /e.safetensors is not a trained editor$/);
    const { numbers } = await readEditor(path, "training");
    deepStrictEqual([...numbers], [["x", Float32Array.of(1, 2)]]);
    const bytes = await Deno.readFile(path);
    for (const cut of [0, 7, 40, bytes.length - 1]) {
      await Deno.writeFile(path, bytes.subarray(0, cut));
      await rejects(readEditor(path, "training"), (error) => {
        ok(error instanceof InputError, `${cut} bytes: ${error}`);
        return true;
      });
    }
  });
});

Deno.test(
  "findEditor() takes a training's folder or a file, and says how to make one",
  withGpu((gpu) =>
    inFolder(async (folder) => {
      using both = await untrained(gpu);
      const path = join(folder, "editor.safetensors");
      await rejects(findEditor(both.model, "mend", folder), /No such editor: /);
      await Deno.writeTextFile(path, "");
      deepStrictEqual(await findEditor(both.model, "mend", folder), path);
      deepStrictEqual(await findEditor(both.model, "mend", path), path);
      await rejects(findEditor(both.model, "mend"), (error) => {
        ok(error instanceof InputError && /no trained mend editor/.test(error.message));
        ok(/cli.ts train --method mend/.test(error.hint!));
        return true;
      });
    })
  ),
);
