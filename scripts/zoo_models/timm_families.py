"""One architecture of every family in timm: the smallest, at the smallest input that it takes, with seeded random weights."""

from __future__ import annotations

from typing import Any

from zoo_models import Built, Entry

NAMES = """
resnet18 mobilenetv3_small_050 vit_tiny_patch16_224 efficientnet_b0 mobilenetv2_100 convnext_atto
swin_tiny_patch4_window7_224 resnet10t resnet26d resnext50_32x4d densenet121 regnetx_002 regnety_002
deit_tiny_distilled_patch16_224 convnextv2_atto mobilevit_xxs mobilevitv2_050 efficientnet_lite0 tf_efficientnet_b0
tf_efficientnetv2_b0 efficientnetv2_rw_t mnasnet_small ghostnet_050 ghostnetv2_100 edgenext_xx_small levit_128s
levit_conv_128s efficientformer_l1 efficientformerv2_s0 fastvit_t8 mixer_s16_224 poolformer_s12 poolformerv2_s12 repvgg_a0
mobileone_s1 mobileone_s0 seresnet18 skresnet18 resnest14d hrnet_w18_small inception_v3 inception_v4 xception41p
legacy_xception vovnet39a ese_vovnet19b_slim_dw eca_vovnet39b dla46x_c dpn48b res2net50_14w_8s rexnet_100 rexnetr_100
tinynet_e lcnet_035 lcnetv2_small hardcorenas_b fbnetc_100 fbnetv3_b spnasnet_100 semnasnet_050 mixnet_s tf_mixnet_s
mobilenet_edgetpu_100 mobilenetv4_conv_small mobilenetv4_hybrid_medium tf_mobilenetv3_small_075 mobilenetv1_100
efficientvit_b0 efficientvit_m0 repvit_m1 repghostnet_050 fasternet_t0 starnet_s050 shvit_s1 swiftformer_s nextvit_small
efficientvim_m1 mambaout_femto iformer_t lowformer_b0 rdnet_tiny cpubone_nano cspnext_tiny csatv2 inception_next_atto
deit3_small_patch16_224 deit_tiny_patch16_224 beit_base_patch16_224 beitv2_base_patch16_224 beit3_base_patch16_224
swinv2_tiny_window16_256 swinv2_cr_tiny_224 swin_s3_tiny_224 maxvit_tiny_tf_224 maxvit_rmlp_pico_rw_256
maxxvit_rmlp_nano_rw_256 maxxvitv2_nano_rw_256 coatnet_pico_rw_224 coatnet_rmlp_nano_rw_224 coatnext_nano_rw_224
cait_xxs24_224 coat_tiny coat_lite_tiny convit_tiny crossvit_tiny_240 davit_tiny focalnet_tiny_srf focalnet_tiny_lrf
gcvit_xxtiny hiera_tiny_224 hiera_small_abswin_256 mvitv2_tiny nest_tiny pit_ti_224 pvt_v2_b0 sequencer2d_s tiny_vit_5m_224
tnt_s_legacy_patch16_224 twins_pcpvt_small twins_svt_small visformer_tiny vitamin_small_224 volo_d1_224 xcit_nano_12_p8_224
eva02_tiny_patch14_224 vit_tiny_patch16_dinov3_qkvb vit_small_patch16_dinov3 vit_pe_core_tiny_patch16_384
vit_medium_patch16_rope_reg1_gap_256 vit_small_plus_patch16_dinov3 vit_relpos_small_patch16_224 vit_srelpos_small_patch16_224
vit_relpos_medium_patch16_rpn_224 samvit_base_patch16_224 vit_small_r26_s32_224 vit_base_resnet26d_224
vit_small_resnet50d_s16_224 vit_base_mci_224 vit_wee_patch16_reg1_gap_256 vit_little_patch16_reg1_gap_256
vit_dwee_patch16_reg1_gap_256 vit_medium_patch16_clip_224 vit_so150m_patch16_reg4_gap_256 flexivit_small
aimv2_large_patch14_224 gmixer_12_224 gmlp_ti16_224 resmlp_12_224 resmlp_big_24_224 caformer_s18 convformer_s18
convmixer_768_32 convnext_zepto_rms convnext_zepto_rms_ols convnext_atto_ols convnext_tiny_hnf convnext_large_mlp
fastvit_mci0 hgnet_tiny hgnetv2_b0 botnet26t_256 eca_botnext26ts_256 eca_halonext26ts halo2botnet50ts_256 halonet26t
haloregnetz_b lambda_resnet26t lamhalobotnet50ts_256 sebotnet33ts_256 sehalonet33ts bat_resnext26ts eca_resnet33ts
eca_resnext26ts gcresnet33ts gcresnext26ts gernet_s regnetz_b16 regnetz_005 regnetv_040 resnet32ts resnext26ts seresnet33ts
seresnext26ts cs3darknet_focus_s cs3darknet_s cs3sedarknet_l cs3edgenet_x cspdarknet53 cspresnet50 cspresnext50 darknet17
darknetaa53 sedarknet21 densenetblur121d efficientnet_blur_b0 efficientnet_es efficientnet_cc_b0_4e tf_efficientnet_lite0
tf_efficientnet_es tf_efficientnet_cc_b0_4e gc_efficientnetv2_rw_t inception_resnet_v2 nasnetalarge pnasnet5large dm_nfnet_f0
eca_nfnet_l0 nf_ecaresnet26 nf_regnet_b0 nf_resnet26 nf_seresnet26 nfnet_f0 ecaresnet26t ecaresnetlight ecaresnext26t_32x4d
resnetaa34d resnetblur18 resnetrs50 senet154 seresnetaa50d seresnext26t_32x4d seresnextaa101d_32x8d wide_resnet50_2
resnetv2_18 resnetv2_50x1_bit resnetv2_50d_gn resnetv2_50d_evos legacy_senet154 legacy_seresnet18 legacy_seresnext26_32x4d
selecsls42 skresnext50_32x4d tresnet_m vgg11 vgg11_bn sam2_hiera_tiny hieradet_small mobilenetv5_300m
naflexvit_base_patch16_gap gemma4_vit_167m qwen3_vit_88m deepseek_vit_412m test_vit test_byobnet test_convnext
test_efficientnet test_efficientnet_evos test_mambaout test_coatnet test_maxvit test_nfnet test_resnet test_vit_relpos
""".split()
SHALLOW = """
beit_base_patch16_224 beitv2_base_patch16_224 beit3_base_patch16_224 samvit_base_patch16_224 vit_base_mci_224
vit_so150m_patch16_reg4_gap_256 aimv2_large_patch14_224 naflexvit_base_patch16_gap qwen3_vit_88m gemma4_vit_167m
deepseek_vit_412m
""".split()
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"depth": 2} for name in SHALLOW},
    "vit_base_resnet26d_224": {"depth": 2},
    "convnext_large_mlp": {"depths": (1, 1, 2, 1)},
}
"""Large networks with fewer of their equal blocks."""
CUT = {"resmlp_big_24_224": 2}
"""The same for networks that have no such option."""


def entries() -> list[Entry]:
    return [Entry(f"timm/{name}", lambda name=name: _build(name)) for name in NAMES]


def _build(name: str) -> Built:
    from zoo_models.random_weights import SEED, allow_torchvision, image, torch_built

    allow_torchvision()
    import timm
    import torch

    torch.manual_seed(SEED)
    model = timm.create_model(name, num_classes=10, **OPTIONS.get(name, {})).eval()
    if name in CUT:
        model.blocks = model.blocks[: CUT[name]]
    cfg = model.default_cfg
    return torch_built(name, model, {"x": image(1, 3, *_size(torch, model, cfg))})


def _size(torch: Any, model: Any, cfg: dict[str, Any]) -> tuple[int, int]:
    """A smaller input where the network takes one."""
    usual = tuple(cfg["input_size"][1:])
    if cfg.get("fixed_input_size"):
        return usual
    for size in (96, 128, 160):
        if size < usual[0]:
            try:
                with torch.no_grad():
                    model(torch.zeros(1, 3, size, size))
            except (RuntimeError, AssertionError, ValueError):
                continue
            return size, size
    return usual
