"""Writes golden.npz: what transformers computes, in float32 on a CPU, for every case.

`make golden` runs it in an environment of its own, of `requirements.txt`. Weights go through a file
and transformers' own loader, under the names that it saves; nothing of this project is imported.
"""

import argparse
import datetime
import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from cases import CASES, IMAGE_TOKEN, Case, kept
from random_weights import weight
from safetensors import safe_open
from safetensors.numpy import save_file

GOLDEN = pathlib.Path(__file__).with_name("golden.npz")
CLASSES = {
    "t5": ("T5Config", "T5ForConditionalGeneration"),
    "umt5": ("UMT5Config", "UMT5ForConditionalGeneration"),
    "vit": ("ViTConfig", "ViTModel"),
    "siglip": ("SiglipVisionConfig", "SiglipVisionModel"),
    "gemma": ("GemmaConfig", "GemmaForCausalLM"),
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "paligemma": ("PaliGemmaConfig", "PaliGemmaForConditionalGeneration"),
    "efficientnet": ("EfficientNetConfig", "EfficientNetModel"),
}
IMAGENET_MEAN, IMAGENET_STDDEV = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(case: Case, folder: pathlib.Path) -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    """A model with the weights that its names give, and those weights."""
    of_config, of_model = (getattr(transformers, name) for name in CLASSES[case.family])
    options = {"add_pooling_layer": False} if case.family == "vit" else {}
    config = of_config(**case.config)
    of_model(config, **options).save_pretrained(folder)
    file = folder / "model.safetensors"
    with safe_open(file, framework="numpy") as opened:
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}
    if case.family in ("t5", "umt5") and not case.config["tie_word_embeddings"]:
        # A new model is tied; published files of T5 1.1 have an output layer, which unties it.
        shapes["lm_head.weight"] = shapes["shared.weight"]
    arrays = {name: weight(name, shape) for name, shape in shapes.items()}
    save_file(arrays, file, {"format": "pt"})
    model, report = of_model.from_pretrained(
        folder, config=config, attn_implementation="eager", output_loading_info=True, **options
    )
    if any(report.values()):
        raise ValueError(f"{case.name}: transformers reports {report}")
    if "lm_head.weight" in arrays:
        np.testing.assert_array_equal(model.lm_head.weight.detach(), arrays["lm_head.weight"])
    return model.eval(), arrays


def run(case: Case, model: torch.nn.Module, arrays: dict[str, np.ndarray]) -> torch.Tensor:
    """Logits or features of the case's inputs."""
    if case.family in ("t5", "umt5"):
        read, write = case.lengths
        inputs = case.tokens("encoder", read)
        inputs[1, read * 3 // 4 :] = 0
        outputs = np.pad(case.tokens("decoder", write - 1), ((0, 0), (1, 0)))
        return model(
            input_ids=torch.tensor(inputs),
            attention_mask=torch.tensor(inputs != 0).long(),
            decoder_input_ids=torch.tensor(outputs),
        ).logits
    if case.family in ("gemma", "llama"):
        return model(input_ids=torch.tensor(case.tokens("tokens", case.lengths[1]))).logits
    pixels = torch.tensor(case.pictures()).permute(0, 3, 1, 2).float()
    if case.family == "efficientnet":
        mean, stddev = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STDDEV))
        features = model((pixels / 255 - mean) / stddev).last_hidden_state
        return features.permute(0, 2, 3, 1)
    pixels = pixels / 127.5 - 1
    if case.family == "siglip":
        return model(pixel_values=pixels).last_hidden_state
    if case.family == "vit":
        return run_without_class_token(case, model, arrays, pixels)
    prefix, rest = case.lengths
    tokens = case.tokens("tokens", prefix + rest)
    vision = case.config["vision_config"]
    places = (vision["image_size"] // vision["patch_size"]) ** 2
    tokens = np.concatenate([np.full((case.rows, places), IMAGE_TOKEN), tokens], axis=1)
    after = np.arange(tokens.shape[1]) >= places + prefix
    return model(
        input_ids=torch.tensor(tokens),
        pixel_values=pixels,
        token_type_ids=torch.tensor(np.broadcast_to(after, tokens.shape).astype(int)),
        attention_mask=torch.ones(tokens.shape, dtype=torch.long),
    ).logits


def run_without_class_token(
    case: Case, model: torch.nn.Module, arrays: dict[str, np.ndarray], pixels: torch.Tensor
) -> torch.Tensor:
    """The layers and the last norm of `ViTModel`, which can't be had without a class token.

    Patches are cut and embedded here.
    """
    side = case.config["patch_size"]
    patches = torch.nn.functional.unfold(pixels, side, stride=side).transpose(1, 2)
    name = "embeddings.patch_embeddings.projection"
    kernel = torch.tensor(arrays[f"{name}.weight"]).flatten(1)
    x = patches @ kernel.T + torch.tensor(arrays[f"{name}.bias"])
    x = x + torch.tensor(arrays["embeddings.position_embeddings"])[:, 1:]
    for layer in model.layers:
        x = layer(x, None)
    return model.layernorm(x)


def main() -> None:
    """Writes the file, or with names of cases only prints what they give."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="only these, and write nothing")
    names = parser.parse_args().cases
    transformers.logging.set_verbosity_error()
    golden: dict[str, np.ndarray] = {}
    for case in CASES.values():
        if names and case.name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            model, arrays = load(case, pathlib.Path(folder))
            output = run(case, model, arrays).numpy()
        count = sum(array.size for array in arrays.values())
        print(
            f"{case.name}: {count:,} weights, output {output.shape}, "
            f"standard deviation {output.std():.3f}, largest {np.abs(output).max():.3f}",
            flush=True,
        )
        golden[f"{case.name}/output"] = kept(case, output)
        golden[f"{case.name}/largest"] = np.abs(output).max()
        golden[f"{case.name}/names"] = np.frombuffer("\n".join(sorted(arrays)).encode(), np.uint8)
    if names:
        return
    made = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "date": datetime.date.today().isoformat(),
    }
    np.savez_compressed(GOLDEN, made=np.array(json.dumps(made)), **golden)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size / 1000:.0f} kB, {made}")


if __name__ == "__main__":
    main()
