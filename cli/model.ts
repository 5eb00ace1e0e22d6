/** Opening the device and a model by the name a user gives: a folder, a .gguf file, or `atlas`. */
import { atlasFolder } from "../atlas/mod.ts";
import { Gpu } from "../engine/gpu/device.ts";
import { InputError } from "../engine/io/errors.ts";
import { type LoadedModel, loadModel } from "../engine/models/load.ts";
import { progress } from "./terminal.ts";

/** An open device and model, with the seconds it took. Dispose to free both. */
export interface Session extends Disposable {
  gpu: Gpu;
  model: LoadedModel;
  loadSeconds: number;
}

/** The path behind a model's name. @throws {InputError} when there is nothing */
export async function modelPath(name: string): Promise<string> {
  if (name === "atlas") return await atlasFolder();
  if (await Deno.stat(name).catch(() => undefined)) return name;
  throw new InputError(`No such model: ${name}`, {
    hint:
      "Give a folder with config.json and *.safetensors, a .gguf file, or atlas, the model that ships with emend",
  });
}

/** Opens the device and loads the model, with a progress bar. */
export async function openSession(name: string): Promise<Session> {
  const path = await modelPath(name);
  const start = performance.now();
  const gpu = await Gpu.open();
  try {
    using bar = progress("Loading the model");
    const model = await loadModel(gpu, path, { onProgress: (done, total) => bar.update(done, total) });
    const loadSeconds = (performance.now() - start) / 1000;
    return {
      gpu,
      model,
      loadSeconds,
      [Symbol.dispose]() {
        model[Symbol.dispose]();
        gpu[Symbol.dispose]();
      },
    };
  } catch (error) {
    gpu[Symbol.dispose]();
    throw error;
  }
}
