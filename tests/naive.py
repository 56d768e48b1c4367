"""Each measure as its formula says, in float64 NumPy, pair by pair and with d x d matrices: slow and independent."""

import itertools

import numpy as np

NAN = float("nan")


def simplex(K):
    return (np.eye(K) - 1 / K) / np.sqrt(K - 1)


def mean(values):
    return np.mean(values) if len(values) else NAN


def angle(x, y):
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def naive(H, y, C, W=None, b=None, delta=0.05, self_pairs=False, center="samples"):
    """The dictionary that :func:`ncflow.metrics.neural_collapse` returns."""
    H, y = np.asarray(H, dtype=np.float64), np.asarray(y)
    present = [c for c in range(C) if (y == c).any()]
    K = len(present)
    means = {c: H[y == c].mean(0) for c in present}
    mu_G = np.mean(list(means.values()), axis=0)
    M = np.stack([means[c] - mu_G for c in present])
    result = cosines(H, y, C, {"samples": H.mean(0), "classes": mu_G, "none": 0 * mu_G}[center], delta, self_pairs)
    result |= cosines(H, y, C, 0 * mu_G, delta, self_pairs, "_raw")

    within = np.mean([np.cov(H[y == c].T, bias=True).reshape(H.shape[1], -1) for c in present], axis=0)
    between = M.T @ M / K
    eigenvalues = np.linalg.eigvalsh(M @ M.T)
    result["nc1_rank"] = int((eigenvalues > K * 2.3e-16 * eigenvalues[-1]).sum())
    result["nc1"] = np.trace(within @ np.linalg.pinv(between, rcond=1e-13, hermitian=True)) / K
    result["nc1_trace_ratio"] = np.trace(within) / np.trace(between)
    spread = {c: np.mean([np.sum((h - means[c]) ** 2) for h in H[y == c]]) for c in present}
    result["cdnv"] = mean(
        [
            (spread[c] + spread[k]) / (2 * np.sum((means[c] - means[k]) ** 2))
            for c, k in itertools.combinations(present, 2)
        ]
    )
    lengths = np.linalg.norm(M, axis=1)
    result["nc2_equinorm_means"] = np.std(lengths) / np.mean(lengths)
    pairs = list(itertools.combinations(range(K), 2))
    result["nc2_equiangular_means"] = mean([abs(angle(M[i], M[j]) + 1 / (K - 1)) for i, j in pairs])
    gram = M @ M.T
    result["nc2_etf_error"] = np.linalg.norm(gram / np.linalg.norm(gram) - simplex(K))
    singular = np.linalg.svd(M, compute_uv=False)
    result["feature_rank"] = singular.sum() ** 2 / (singular**2).sum()

    nearest = np.array([present[np.argmin([np.sum((h - means[c]) ** 2) for c in present])] for h in H])
    result["ncc_accuracy"] = np.mean(nearest == y)
    result["feature_rms_norm"] = np.sqrt(np.mean((H**2).sum(1)))
    result["classes_present"] = K
    result["nonfinite_samples"] = 0
    if W is not None:
        W = np.asarray(W, dtype=np.float64)
        logits = H @ W.T + (0 if b is None else np.asarray(b, dtype=np.float64))
        result["nc4_agreement"] = np.mean(nearest == logits.argmax(1))
        margins = np.array([z[c] - max(z[k] for k in range(C) if k != c) for z, c in zip(logits, y, strict=True)])
        result |= {"margin_min": margins.min(), "margin_mean": margins.mean(), "margin_std": margins.std()}
        norms = np.linalg.norm(W, axis=1)
        result["nc0"] = np.linalg.norm(sum(W))
        result["nc0_relative"] = result["nc0"] / np.linalg.norm(W)
        result["nc2_equinorm_weights"] = np.std(norms) / np.mean(norms)
        result["nc2_equiangular_weights"] = mean(
            [abs(angle(W[i], W[j]) + 1 / (C - 1)) for i, j in itertools.combinations(range(C), 2)]
        )
        result["weight_norm"] = np.linalg.norm(W)
        rows = (W - W.mean(0))[present]
        duality = [angle(w, m) for w, m in zip(rows, M, strict=True)]
        result |= {"nc3_cosine_min": min(duality), "nc3_cosine_mean": np.mean(duality)}
        V = W[present]
        result["nc3_distance"] = np.linalg.norm(V / np.linalg.norm(V) - M / np.linalg.norm(M))
        A = V @ M.T
        result["nc3_etf_error"] = np.linalg.norm(A / np.linalg.norm(A) - simplex(K))
    return result


def cosines(H, y, C, centre, delta, self_pairs, suffix=""):
    """The cosine family over all pairs of samples, of which there is a table, N x N."""
    lengths = np.linalg.norm(H - centre, axis=1)
    members = [np.flatnonzero((y == c) & (lengths > 0)) for c in range(C)]
    with np.errstate(divide="ignore", invalid="ignore"):  # those without a direction are no members
        angles = (H - centre) @ (H - centre).T / np.outer(lengths, lengths)
    intra, inter = [], []
    for own in members:
        of_pairs = angles[np.ix_(own, own)][np.full((len(own),) * 2, self_pairs) | ~np.eye(len(own), dtype=bool)]
        intra += [np.mean(of_pairs)] if len(of_pairs) else []
    for one, other in itertools.combinations(members, 2):
        inter += [np.mean(angles[np.ix_(one, other)])] if len(one) and len(other) else []
    return {
        f"intra{suffix}_min": min(intra, default=NAN),
        f"intra{suffix}_mean": mean(intra),
        f"intra{suffix}_quantile": np.quantile(intra, delta) if intra else NAN,
        f"inter{suffix}_max": max(inter, default=NAN),
        f"inter{suffix}_mean": mean(inter),
        f"inter{suffix}_quantile": np.quantile(inter, 1 - delta) if inter else NAN,
    }
