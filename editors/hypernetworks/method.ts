/** What methods that edit with a trained network have in common as entries of the table of methods. */
import { basename } from "node:path";
import { z } from "npm:zod@4.6.7";
import { generate } from "../../engine/models/generate.ts";
import type { LoadedModel } from "../../engine/models/load.ts";
import type { Edit } from "../edit.ts";
import { parseHparams, requireKeys, requireLayers } from "../hparams.ts";
import type { Method } from "../methods.ts";
import { type EditRequest, requireConsistent, tokeniseRequest, validateRequest } from "../requests.ts";
import type { EditOptions } from "../rome.ts";
import { editorBase, type EditorHead, findEditor, readEditor, requireFit } from "./file.ts";
import type { EditorKind } from "./kinds.ts";
import { makeChanges } from "./make.ts";
import type { EditText } from "./network.ts";

export const trainedSchema = z.object({
  /** The layers that the editor must be for; the maps are its own in any case. */
  layers: z.array(z.number().int().min(0)).default([]),
  /** The editor: the folder of a training, or its file; by default the one that belongs to the model. */
  editor: z.string().optional(),
});

export type TrainedHparams = z.infer<typeof trainedSchema>;

/** The method of a kind of trained editors. */
export function trainedMethod(kind: EditorKind, summary: string): Method<TrainedHparams> {
  const { name } = kind;
  return {
    name,
    summary,
    recipe: () => ({ hparams: {}, source: "A trained editor", known: true }),
    parse: (values, source) => parseHparams(trainedSchema, values, source),
    requireKeys: (keys) => requireKeys(name, trainedSchema, keys),
    statistics: () => [],
    prepare: async (model, hparams) => void await fittingEditor(model, kind, hparams),
    plan(model, requests, { layers }) {
      const targets = requests.map((request) => {
        const { prompt, target } = tokeniseRequest(model, validateRequest(request));
        // All rows go through all layers, once.
        return { prompts: [{ ...prompt, subjectLast: 0 }], target, kl: { ...prompt, subjectLast: 0 } };
      });
      const layer = layers.length ? Math.min(...layers) : 0;
      return { layer, steps: 1, targets };
    },
    run: (model, requests, options) => editWith(model, requests, kind, options),
  };
}

/** Tokens of the model's own answer that an editor reads. */
const READ = 3;

/** The editor that is asked for. @throws {InputError} when there is none, or it is of another model, method or maps */
async function fittingEditor(model: LoadedModel, kind: EditorKind, hparams: TrainedHparams) {
  requireLayers(model, hparams.layers);
  const path = await findEditor(model, kind.name, hparams.editor);
  const editor = await readEditor(path);
  const wanted = hparams.layers.length ? kind.roles(model, hparams) : undefined;
  requireFit(path, editor.head, await editorBase(model), kind.name, wanted);
  return editor;
}

/** Edits all requests together. @throws {InputError} as {@link fittingEditor} */
async function editWith(
  model: LoadedModel,
  requests: readonly EditRequest[],
  kind: EditorKind,
  { hparams, onProgress }: EditOptions<TrainedHparams>,
): Promise<Edit> {
  const valid = requests.map((r, i) =>
    validateRequest(r, requests.length > 1 ? `Request ${i + 1}` : undefined)
  );
  requireConsistent(valid);
  const { head, numbers } = await fittingEditor(model, kind, hparams);

  const texts = valid.map((request, i): EditText => {
    const { prompt: { ids }, target } = tokeniseRequest(model, request);
    return { prompt: ids, target, group: kind.alone ? i : 0 };
  });
  if (kind.alone) {
    const said = await generate(model, texts.map(({ prompt }) => prompt), { maxTokens: READ });
    said.forEach((before, i) => texts[i].before = before);
  }
  using network = kind.network(model, head.roles, head.shape, numbers);
  const { deltas, losses } = await makeChanges(model, network, texts);
  onProgress?.(valid.length, valid.length);
  return {
    method: kind.name,
    hparams: { ...hparams, ...hparams.editor === undefined ? {} : { editor: basename(hparams.editor) } },
    requests: valid,
    deltas,
    outcomes: losses.map((nll, i) => ({
      steps: 1,
      losses: [{ nll, kl: 0, wd: 0 }],
      warnings: i === 0 ? crowded(kind, head, valid.length) : [],
    })),
  };
}

/** The loss of edits made together is a mean, so each of more edits than there were in training writes less. */
function crowded({ alone }: EditorKind, { training }: EditorHead, edits: number): string[] {
  const { n_edits: trained } = (training.hparams ?? {}) as { n_edits?: number };
  if (alone || trained === undefined || edits <= trained) return [];
  return [
    `The editor was trained to make ${
      trained === 1 ? "one edit" : `${trained} edits`
    } at once, not ${edits}: ` +
    `each may write too little. Make fewer at once, or train with --set n_edits=${edits}`,
  ];
}
