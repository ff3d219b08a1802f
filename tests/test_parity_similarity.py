"""Equal to the reference of video similarity: every recorded file that is compared, as it is and
damaged."""

import numpy as np
import pytest

from benchmarks import parity

CHECKS = sorted(parity.checks_of("similarity"))
DAMAGED = {
    "asl": ["logits", "targets", "cfg_paper", "loss_seed", "grad_focal", "sat_grad_seed"],
    "contrastive": ["vision", "temperature", "loss_per_sample", "grad_text_of_sum"],
    "ensemble": ["weights", "model3_fold_embeddings", "merged", "cosine_weighted_concat",
                 "gram_svd"],
    "extensions": ["mfm_pred", "mfm_loss", "pearson_softmax_grad", "rank_label_out",
                   "uniform_sampling_idx"],
    "finetune": ["emb1", "label", "tags2", "bce_kl", "bce_mse_sum", "asl_loss_vector",
                 "asl_grad_logit1_of_sum"],
    "lr_schedule": ["finetune_text_cfg", "pretrain_head_lr", "finetune4000_head_step"],
    "mix_head": ["frames", "w_e2_vlad_centers", "w_gate_kernel", "eval_reg", "train_pred",
                 "eval_asl_loss_tag", "train_grad_pooled_text"],
    "nextvlad": ["num_frames", "w_bn_var", "out_train", "bn_var_after", "vlad_before_fc_eval"],
    "spearman": ["no_ties_label_rank", "ties_in_both_rho", "e2e_embeddings",
                 "rank_normalised_label"],
    "uniter_bert": ["input_ids", "w_mlm_out_bias", "w_enc_embeddings.LayerNorm.bias",
                    "out_embedding_max", "out_loss_mlm", "out_grad_frames_of_sum"],
    "uniter_roformer": ["w_enc_encoder.embed_positions.weight", "out_mlm_logits", "mlm_labels"],
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", CHECKS)
def test_equals_the_reference(golden, name):
    results = parity.compare_file(golden / "similarity" / f"{name}.npz")
    assert results
    assert [result for result in results if not result.passed] == []


def test_every_check_has_its_recording(golden):
    files = parity.recordings_of(golden / "similarity")
    assert {path.stem for path in files} >= set(CHECKS)


def damaged(array):
    """Return other numbers. Some results stay where all of them are greater by the same."""
    return (2 * array + 1).astype(array.dtype)


@pytest.mark.long
@pytest.mark.parametrize(("name", "arrays"), DAMAGED.items())
def test_damaged_copies_fail(golden, tmp_path, name, arrays):
    whole = dict(np.load(golden / "similarity" / f"{name}.npz", allow_pickle=False))
    path = tmp_path / "similarity" / f"{name}.npz"
    path.parent.mkdir()
    for chosen in arrays:
        np.savez(path, **(whole | {chosen: damaged(whole[chosen])}))
        failed = [r for r in parity.compare_file(path) if not r.passed]
        assert failed, f"{chosen} was damaged, and all agrees"
    np.savez(path, **whole, another=np.zeros(1))
    (left,) = [result for result in parity.compare_file(path) if not result.passed]
    assert left.quantity == "another: not compared"
