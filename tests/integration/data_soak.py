"""A run's batches for a long time; prints memory and open files as it goes.

    python data_soak.py CACHES BATCHES EVERY WORKERS

Every line is a JSON list: batches so far, bytes of memory, open files; of this process and all that
it has started. Memory is what is its own or shared with the others (`Pss_Anon` and `Pss_Shmem`), so
without the page cache.
"""

import json
import os
import pathlib
import sys

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.benchmarks.processes import family
from rt2_jax.data.batches import MixtureBatches
from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import mixture_examples
from rt2_jax.data.manifest import Manifest, MixtureTask, mixture_statistics
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

BATCH = 64
SIZE = (224, 224)


def memory_and_files() -> tuple[int, int]:
    memory = files = 0
    for process in family(os.getpid()):
        folder = pathlib.Path("/proc", str(process))
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                memory += 1024 * int(line.split()[1])
        files += len(list((folder / "fd").iterdir()))
    return memory, files


def main(root: str, batches: int, every: int, workers: int) -> None:
    names = sorted(folder.name for folder in pathlib.Path(root).iterdir())
    caches = [StepCache(root, name, "train") for name in names]
    share = 1 / len(caches)
    tasks = tuple(
        MixtureTask(each.info.task, share, each.info.steps, each.info.episodes, each.info.hash)
        for each in caches
    )
    manifest = Manifest("soak", "train", tasks, mixture_statistics(caches))
    spec = InputSpec((("front", 0),), SIZE, 48, 16, robot_crop=0.9, brightness=0.1)
    inputs = ModelInputs(spec, load_vocabulary())
    vocabulary = ActionVocabulary.from_integer_pieces(inputs.tokenizer)
    examples = mixture_examples(manifest, caches, inputs, UniformBins(), vocabulary)
    with MixtureBatches(
        manifest, examples, seed=0, global_batch_size=BATCH, workers=workers
    ) as run:
        for number in range(1, batches + 1):
            batch = next(run)
            if number % every == 0:
                assert batch["images"].shape == (BATCH, 1, *SIZE, 3)
                print(json.dumps([number, *memory_and_files()]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
