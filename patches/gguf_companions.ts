/**
 * What a model folder needs beside the weights when the base was a GGUF file, whose config, tokenizer and
 * chat template are metadata: config.json, tokenizer.json and tokenizer_config.json for transformers.
 */
import { join } from "node:path";
import { writeFileAtomic } from "../engine/io/atomic.ts";
import type { Checkpoint, WeightInfo } from "../engine/io/checkpoint.ts";
import { parseGguf } from "../engine/io/gguf.ts";
import { openFile } from "../engine/io/source.ts";

const TORCH_DTYPES: Record<WeightInfo["dtype"], string> = {
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
};

/** Writes the three files into `folder`. @throws {InputError} when emend reads no tokenizer from the base */
export async function writeGgufCompanions(folder: string, checkpoint: Checkpoint): Promise<void> {
  const write = (name: string, value: unknown) =>
    writeFileAtomic(join(folder, name), JSON.stringify(value, null, 2) + "\n");
  const tokenizer = await checkpoint.tokenizer();
  const { bos, eos } = tokenizer;
  const template = await chatTemplate(checkpoint.path);
  await write("config.json", { ...checkpoint.config, torch_dtype: torchDtype(checkpoint) });
  await write("tokenizer.json", tokenizer.toJSON());
  await write("tokenizer_config.json", {
    tokenizer_class: "PreTrainedTokenizerFast",
    ...(bos === undefined ? {} : { bos_token: tokenizer.token(bos) }),
    ...(eos === undefined ? {} : { eos_token: tokenizer.token(eos) }),
    clean_up_tokenization_spaces: false,
    model_max_length: checkpoint.config.max_position_embeddings ?? checkpoint.config.n_positions,
    ...(template === undefined ? {} : { chat_template: template }),
  });
}

/** The widest dtype of the matrices; llama.cpp keeps norms in F32 whatever the matrices are. */
function torchDtype(checkpoint: Checkpoint): string {
  const dtypes = [...checkpoint.weights.values()].filter(({ shape }) => shape.length > 1).map((i) => i.dtype);
  return TORCH_DTYPES[dtypes.find((dtype) => dtype === "F32") ?? dtypes[0]];
}

async function chatTemplate(path: string): Promise<string | undefined> {
  const source = await openFile(path);
  try {
    const template = (await parseGguf(source)).metadata.get("tokenizer.chat_template");
    return typeof template === "string" ? template : undefined;
  } finally {
    source.close();
  }
}
