"""transformers: encoders, decoders with and without a cache of keys and values, speech and vision, small and random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo_models import Built, Entry

LENGTH, PADDED, PAST, VOCABULARY = 16, 3, 12, 96
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
GROUPED = {**TEXT, "num_key_value_heads": 2}
T5 = {"vocab_size": VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
T5 |= {"decoder_start_token_id": 0}
BART = {"vocab_size": VOCABULARY, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
BART |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 64}
BART |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
WHISPER = {**BART, "num_mel_bins": 16, "max_source_positions": 32, "max_target_positions": 64}
VISION = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 64}
VISION |= {"patch_size": 16}
SPEECH = {**TEXT, "conv_dim": (32,) * 3, "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 2), "num_feat_extract_layers": 3}
SPEECH |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
SWIN = {"image_size": 64, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
SEGFORMER = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32}
SEGFORMER |= {"num_attention_heads": [1, 2, 2, 4]}
DPT = {**VISION, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [16, 16, 32, 32]}
DPT |= {"fusion_hidden_size": 32, "is_hybrid": False}
DETR = {
    "use_timm_backbone": False,
    "backbone": None,
    "backbone_config": {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
    | {"layer_type": "basic", "out_features": ["stage4"]},
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 10,
}


@dataclass(frozen=True)
class _Network:
    """A class of transformers, the arguments of its config, and which feeds it takes (a key of FEEDS).

    `part` is the submodule that is the network; `arguments` go into every call.
    """

    model: str
    config: Mapping[str, Any]
    takes: str = "text"
    part: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


ENCODERS = {
    "bert": _Network("BertModel", TEXT),
    "bert-classifier": _Network("BertForSequenceClassification", TEXT),
    "distilbert": _Network(
        "DistilBertModel", {"vocab_size": VOCABULARY, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}
    ),
    "roberta": _Network("RobertaModel", TEXT),
    "xlm-roberta": _Network("XLMRobertaModel", TEXT),
    "mpnet": _Network("MPNetModel", TEXT),
    "albert": _Network("AlbertModel", {**TEXT, "embedding_size": 32}),
    "electra": _Network("ElectraModel", {**TEXT, "embedding_size": 32}),
    "deberta-v2": _Network(
        "DebertaV2Model",
        {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16, "share_att_key": True},
    ),
    "mobilebert": _Network(
        "MobileBertModel", {**TEXT, "embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32}
    ),
    "squeezebert": _Network("SqueezeBertModel", {**TEXT, "embedding_size": 64}),
    "convbert": _Network("ConvBertModel", {**TEXT, "embedding_size": 64, "head_ratio": 2, "conv_kernel_size": 5}),
    "modernbert": _Network("ModernBertModel", {**TEXT, "local_attention": 8, "global_attn_every_n_layers": 2}),
    "funnel": _Network(
        "FunnelModel",
        {"vocab_size": VOCABULARY, "d_model": 64, "n_head": 4, "d_head": 16, "d_inner": 128, "block_sizes": [1, 1]},
    ),
    "t5-encoder": _Network("T5EncoderModel", T5),
    "t5-decoder": _Network("T5Model", T5, "sequence to sequence", arguments={"use_cache": False}),
    "bart": _Network("BartModel", BART, "sequence to sequence", arguments={"use_cache": False}),
    "marian": _Network("MarianModel", BART, "sequence to sequence", arguments={"use_cache": False}),
    "clip-text": _Network("CLIPTextModel", {**TEXT, "eos_token_id": 2, "bos_token_id": 0}),
}
SIGHT_AND_SOUND = {
    "whisper-encoder": _Network("WhisperModel", WHISPER, "mel", part="encoder"),
    "whisper-decoder": _Network("WhisperModel", WHISPER, "cross", part="decoder", arguments={"use_cache": False}),
    "wav2vec2": _Network("Wav2Vec2Model", SPEECH, "wave"),
    "hubert": _Network("HubertModel", SPEECH, "wave"),
    "ast": _Network("ASTModel", {**VISION, "max_length": 64, "num_mel_bins": 32}, "spectrogram"),
    "clip-vision": _Network("CLIPVisionModel", VISION, "image"),
    "siglip-vision": _Network("SiglipVisionModel", VISION, "image"),
    "vit": _Network("ViTModel", VISION, "image"),
    "deit": _Network("DeiTModel", VISION, "image"),
    "beit": _Network("BeitModel", {**VISION, "use_relative_position_bias": True}, "image"),
    "dinov2": _Network("Dinov2Model", VISION, "image"),
    "swin": _Network("SwinModel", SWIN, "image"),
    "swinv2": _Network("Swinv2Model", SWIN, "image"),
    "convnext": _Network("ConvNextModel", {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 2, 1]}, "image"),
    "mobilevit": _Network("MobileViTModel", {"image_size": 64}, "image"),
    "segformer": _Network("SegformerForSemanticSegmentation", SEGFORMER, "image"),
    "yolos": _Network("YolosModel", {**VISION, "image_size": [64, 64], "num_detection_tokens": 8}, "image"),
    "dpt": _Network("DPTForDepthEstimation", DPT, "image"),
    "poolformer": _Network("PoolFormerModel", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}, "image"),
    "cvt": _Network("CvtModel", {"depth": [1, 2, 3]}, "image"),
    "levit": _Network(
        "LevitModel",
        {"image_size": 64, "hidden_sizes": [64, 96, 128], "depths": [1, 1, 1], "num_attention_heads": [4, 6, 8]},
        "image",
    ),
    "detr": _Network("DetrForObjectDetection", DETR, "image and mask"),
    "rt-detr": _Network("RTDetrModel", {"num_queries": 30}, "image"),
}
DECODERS = {
    "gpt2": _Network("GPT2LMHeadModel", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "llama": _Network("LlamaForCausalLM", GROUPED),
    "qwen2": _Network("Qwen2ForCausalLM", GROUPED),
    "qwen3": _Network("Qwen3ForCausalLM", {**GROUPED, "head_dim": 16}),
    "gemma": _Network("GemmaForCausalLM", {**GROUPED, "head_dim": 16}),
    "gemma2": _Network("Gemma2ForCausalLM", {**GROUPED, "head_dim": 16, "sliding_window": 8}),
    "gemma3": _Network("Gemma3ForCausalLM", {**GROUPED, "head_dim": 16, "sliding_window": 8}),
    "phi": _Network("PhiForCausalLM", TEXT),
    "phi3": _Network("Phi3ForCausalLM", {**GROUPED, "pad_token_id": 1}),
    "mistral": _Network("MistralForCausalLM", {**GROUPED, "sliding_window": 8}),
    "opt": _Network(
        "OPTForCausalLM",
        {k: v for k, v in TEXT.items() if k != "intermediate_size"} | {"ffn_dim": 128, "word_embed_proj_dim": 64},
    ),
    "bloom": _Network("BloomForCausalLM", {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "gpt-neox": _Network("GPTNeoXForCausalLM", TEXT),
    "falcon": _Network("FalconForCausalLM", {**TEXT, "new_decoder_architecture": False}),
    "stablelm": _Network("StableLmForCausalLM", GROUPED),
    "olmo2": _Network("Olmo2ForCausalLM", GROUPED),
    "smollm3": _Network("SmolLM3ForCausalLM", {**GROUPED, "bos_token_id": 0, "eos_token_id": 2}),
    "granite": _Network("GraniteForCausalLM", GROUPED),
}
CACHED = "gpt2 llama qwen2 qwen3 gemma gemma2 gemma3 phi phi3 mistral opt gpt-neox".split()


def entries() -> list[Entry]:
    plain = {**ENCODERS, **SIGHT_AND_SOUND, **DECODERS}
    return [
        *(Entry(f"transformers/{name}", lambda name=name, n=n: _build(name, n)) for name, n in plain.items()),
        *(Entry(f"transformers/{name}-cache", lambda name=name: _build_cached(name, DECODERS[name])) for name in CACHED),
    ]


def _build(name: str, network: _Network) -> Built:
    from zoo_models.random_weights import torch_built

    arguments = {"use_cache": False, **network.arguments} if name in DECODERS else dict(network.arguments)
    model = _create(network)
    return torch_built(name, _with_arguments(model, arguments), FEEDS[network.takes]())


def _build_cached(name: str, network: _Network) -> Built:
    """One step of generation: one token, the keys and values of PAST tokens, and both back with the new one."""
    from zoo_models.random_weights import image, tokens, torch_built

    model = _create(network)
    layers = model.config.num_hidden_layers
    heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
    width = getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads
    feeds = {"input_ids": tokens(1, 1), "attention_mask": np.ones((1, PAST + 1), np.int64)}
    for layer in range(layers):
        for which in ("key", "value"):
            feeds[f"past_{which}_{layer}"] = image(1, heads, PAST, width) * (0.5 if which == "key" else 0.7)
    return torch_built(name, _cached_step(model, layers, list(feeds)), feeds)


def _create(network: _Network) -> Any:
    from zoo_models.random_weights import SEED, allow_torchvision

    allow_torchvision()
    import torch
    import transformers

    torch.manual_seed(SEED)
    kind = getattr(transformers, network.model)
    model = kind(kind.config_class(**network.config))
    for part in filter(None, network.part.split(".")):
        model = getattr(model, part)
    return model


def _with_arguments(model: Any, arguments: Mapping[str, Any]) -> Any:
    """`model` with some arguments of forward() settled; its other parameters keep their names."""
    import torch

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **tensors: Any) -> Any:
            return dict(self.model(**tensors, **arguments).items())

    return Call()


def _cached_step(model: Any, layers: int, names: list[str]) -> Any:
    import torch
    from transformers import DynamicCache

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **tensors: Any) -> Any:
            cache = DynamicCache()
            for layer in range(layers):
                cache.update(tensors[f"past_key_{layer}"], tensors[f"past_value_{layer}"], layer)
            out = self.model(
                input_ids=tensors["input_ids"],
                attention_mask=tensors["attention_mask"],
                past_key_values=cache,
                use_cache=True,
            )
            results = {"logits": out.logits}
            for layer, kept in enumerate(out.past_key_values.layers):
                results[f"key_{layer}"], results[f"value_{layer}"] = kept.keys, kept.values
            return results

    return Step()


def _text() -> dict[str, np.ndarray]:
    from zoo_models.random_weights import mask, tokens

    return {"input_ids": tokens(1, LENGTH), "attention_mask": mask(1, LENGTH, PADDED)}


def _sequence_to_sequence() -> dict[str, np.ndarray]:
    from zoo_models.random_weights import tokens

    return {**_text(), "decoder_input_ids": tokens(1, 8)}


def _cross() -> dict[str, np.ndarray]:
    from zoo_models.random_weights import image, tokens

    return {"input_ids": tokens(1, 8), "encoder_hidden_states": image(1, 32, 64)}


def _image(name: str = "pixel_values", *shape: int) -> Callable[[], dict[str, np.ndarray]]:
    def feeds() -> dict[str, np.ndarray]:
        from zoo_models.random_weights import image

        return {name: image(*(shape or (1, 3, 64, 64)))}

    return feeds


FEEDS: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "text": _text,
    "sequence to sequence": _sequence_to_sequence,
    "cross": _cross,
    "mel": _image("input_features", 1, 16, 64),
    "wave": _image("input_values", 1, 1600),
    "spectrogram": _image("input_values", 1, 64, 32),
    "image": _image(),
    "image and mask": lambda: {**_image()(), "pixel_mask": np.ones((1, 64, 64), np.int64)},
}
