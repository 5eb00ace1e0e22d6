import assert from "node:assert/strict";
import { join } from "node:path";
import { checkWritable, writeFileAtomic, writeFolderAtomic } from "../../../engine/io/atomic.ts";
import { InputError } from "../../../engine/io/errors.ts";
import { inFolder } from "./_data.ts";

const names = (folder: string) => [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();

Deno.test("writeFileAtomic() replaces a file and makes parent folders", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "a", "b", "x.json");
    await writeFileAtomic(path, "one");
    await writeFileAtomic(path, new TextEncoder().encode("two"));
    assert.equal(await Deno.readTextFile(path), "two");
    assert.deepEqual(names(join(folder, "a", "b")), ["x.json"]);
  });
});

Deno.test("writeFileAtomic() throws InputError when a parent is a file", async () => {
  await inFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "file"), "");
    await assert.rejects(writeFileAtomic(join(folder, "file", "x"), ""), InputError);
  });
});

Deno.test("writeFolderAtomic() swaps an old model for the new one", async () => {
  await inFolder(async (folder) => {
    const dir = join(folder, "model");
    for (const content of ["one", "two"]) {
      await writeFolderAtomic(dir, async (tmp) => {
        // Until the swap, the old folder is whole.
        if (content === "two") assert.equal(await Deno.readTextFile(join(dir, "config.json")), "one");
        await Deno.writeTextFile(join(tmp, "config.json"), content);
        await Deno.writeTextFile(join(tmp, content), "");
      });
      assert.equal(await Deno.readTextFile(join(dir, "config.json")), content);
    }
    assert.deepEqual(names(dir), ["config.json", "two"]);
    assert.deepEqual(names(folder), ["model"]);
  });
});

Deno.test("writeFolderAtomic() keeps the old folder when the build fails", async () => {
  await inFolder(async (folder) => {
    const dir = join(folder, "model");
    await writeFolderAtomic(dir, (tmp) => Deno.writeTextFile(join(tmp, "config.json"), "old"));
    const failing = writeFolderAtomic(dir, async (tmp) => {
      await Deno.writeTextFile(join(tmp, "config.json"), "new");
      throw new Error("no");
    });
    await assert.rejects(failing, /^Error: no$/);
    assert.equal(await Deno.readTextFile(join(dir, "config.json")), "old");
    assert.deepEqual(names(folder), ["model"]);
  });
});

Deno.test("writeFolderAtomic() leaves the old folder whole when the process is killed", async () => {
  await inFolder(async (folder) => {
    const dir = join(folder, "model");
    await writeFolderAtomic(dir, (tmp) => Deno.writeTextFile(join(tmp, "config.json"), "old"));
    const module = new URL("../../../engine/io/atomic.ts", import.meta.url).href;
    const code = `import { writeFolderAtomic } from ${JSON.stringify(module)};
      await writeFolderAtomic(${JSON.stringify(dir)}, async (tmp) => {
        await Deno.writeTextFile(tmp + "/config.json", "new");
        Deno.kill(Deno.pid, "SIGKILL");
        await new Promise(() => {});
      });`;
    const { success } = await new Deno.Command(Deno.execPath(), { args: ["eval", code] }).output();
    assert.equal(success, false);
    assert.equal(await Deno.readTextFile(join(dir, "config.json")), "old");
  });
});

Deno.test("writeFolderAtomic() refuses to replace a folder that is no model", async () => {
  await inFolder(async (folder) => {
    const dir = join(folder, "home");
    await Deno.mkdir(join(dir, "photos"), { recursive: true });
    const build = () => Promise.reject(new Error("must not start"));
    await assert.rejects(writeFolderAtomic(dir, build), /holds something other than a model/);
    // A subfolder keeps even a folder with a config.json from being replaced.
    await Deno.writeTextFile(join(dir, "config.json"), "{}");
    await assert.rejects(writeFolderAtomic(dir, build), /holds something other than a model/);
  });
});

Deno.test("checkWritable() makes nothing when the path is under folders yet to be made", async () => {
  await inFolder(async (folder) => {
    await checkWritable(join(folder, "a", "b", "c.json"));
    await checkWritable(join(folder, "a", "b"), "folder");
    assert.deepEqual(names(folder), []);
  });
});

Deno.test("checkWritable() throws InputError when the output cannot be made", async () => {
  await inFolder(async (folder) => {
    await assert.rejects(checkWritable(folder), /it is a folder/);
    await assert.rejects(checkWritable("/proc/emend/x.json"), /\/proc is not a writable folder/);
    const file = join(folder, "file");
    await Deno.writeTextFile(file, "");
    await assert.rejects(checkWritable(join(file, "x")), /file is not a writable folder/);
    await assert.rejects(checkWritable(file, "folder"), InputError);
  });
});

Deno.test("a save removes what killed saves of its own name left an hour ago or earlier, and nothing else", async () => {
  await inFolder(async (folder) => {
    const old = new Date(Date.now() - 2 * 3600e3);
    const leave = async (name: string, time?: Date) => {
      await Deno.writeTextFile(join(folder, name), "half");
      if (time) await Deno.utime(join(folder, name), time, time);
    };
    await leave(".x.json.123-0a1b2c3d.tmp", old);
    await leave(".x.json.123-0a1b2c3e.tmp");
    await leave(".y.json.123-0a1b2c3d.tmp", old);
    await leave(".x.json.tmp", old);
    // A folder is as old as the youngest file in it.
    for (
      const [name, time] of [[".model.7-00000000.tmp", old], [".model.7-00000001.tmp", undefined]] as const
    ) {
      await Deno.mkdir(join(folder, name));
      await leave(join(name, "config.json"), time);
      await Deno.utime(join(folder, name), old, old);
    }
    await writeFileAtomic(join(folder, "x.json"), "whole");
    await writeFolderAtomic(
      join(folder, "model"),
      (tmp) => Deno.writeTextFile(join(tmp, "config.json"), "{}"),
    );
    assert.deepEqual(names(folder), [
      ".model.7-00000001.tmp",
      ".x.json.123-0a1b2c3e.tmp",
      ".x.json.tmp",
      ".y.json.123-0a1b2c3d.tmp",
      "model",
      "x.json",
    ]);
  });
});
