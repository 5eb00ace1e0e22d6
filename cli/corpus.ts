/** The text that statistics are collected over: a file with a document a line, or the corpus of atlas. */
import { createHash } from "node:crypto";
import { atlasCorpus } from "../atlas/corpus.ts";
import { InputError } from "../engine/io/errors.ts";

/** A text that can be read again and again. */
export interface Corpus {
  /** As the user gave it. */
  path: string;
  name: string;
  /** SHA-256 of the text. */
  hash: string;
  documents(): AsyncGenerator<string>;
}

/** Opens a corpus by the name a user gives. @throws {InputError} when the file cannot be read */
export async function openCorpus(path: string): Promise<Corpus> {
  if (path === "atlas") {
    const hash = createHash("sha256");
    for (const text of atlasCorpus()) hash.update(text + "\n");
    return {
      path,
      name: "atlas",
      hash: hash.digest("hex"),
      async *documents() {
        yield* atlasCorpus();
      },
    };
  }
  const lines = async function* (): AsyncGenerator<string> {
    using file = await Deno.open(path);
    let rest = "";
    for await (const piece of file.readable.pipeThrough(new TextDecoderStream())) {
      const parts = (rest + piece).split("\n");
      rest = parts.pop()!;
      for (const line of parts) if (line.trim()) yield line.trim();
    }
    if (rest.trim()) yield rest.trim();
  };
  const hash = createHash("sha256");
  try {
    using file = await Deno.open(path);
    for await (const piece of file.readable) hash.update(piece);
  } catch (error) {
    throw new InputError(
      `Cannot read the corpus ${path}: ${
        error instanceof Deno.errors.NotFound ? "there is no such file" : error
      }`,
    );
  }
  return { path, name: path.split("/").at(-1)!, hash: hash.digest("hex"), documents: lines };
}
