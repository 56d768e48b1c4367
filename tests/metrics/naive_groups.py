"""Each group of measures as its formula says, in float64 NumPy, sample by sample and pair by pair."""

import itertools

import numpy as np
from sklearn.linear_model import RidgeClassifier

from tests.naive import NAN, angle


def means_of(H, y):
    present = sorted(set(y.tolist()))
    mu = {c: H[y == c].mean(0) for c in present}
    centre = np.mean(list(mu.values()), axis=0)
    return mu, {c: mu[c] - centre for c in present}


def variation(values):
    return np.std(values) / abs(np.mean(values)) if len(values) else NAN


def uniformity(H, y, **given):
    """With s = 2."""
    _, m = means_of(H, y)
    units = {c: row / np.linalg.norm(row) for c, row in m.items()}
    r = np.array([np.linalg.norm(units[c] - units[k]) for c, k in itertools.combinations(m, 2)])
    return {
        "gnc2_log_mean": np.mean(np.log(1 / r)),
        "gnc2_log_cov": variation(np.log(1 / r)),
        "gnc2_riesz_mean": np.mean(1 / r**2),
        "gnc2_riesz_cov": variation(1 / r**2),
    }


def dual_uniformity(H, y, W, **given):
    cosines = [angle(W[c], row) for c, row in means_of(H, y)[1].items()]
    return {"unc3_mean": np.mean(cosines), "unc3_cov": variation(cosines)}


def ood(H, y, other, **given):
    return {"nc5_ood_cosine": np.mean([abs(angle(row, other.mean(0))) for row in means_of(H, y)[0].values()])}


def few_shot(H, y, **given):
    mu, _ = means_of(H, y)
    ratios = []
    for c, k in itertools.permutations(mu, 2):
        apart = np.linalg.norm(mu[k] - mu[c])
        ratios.append(np.var([h @ (mu[k] - mu[c]) / apart for h in H[y == c]]) / apart**2)
    return {"few_shot_cdnv": np.mean(ratios) if ratios else NAN}


def probe(H, y, fitted_on=None, **given):
    """By scikit-learn, of the split itself, or trained on another (features, labels)."""
    features, labels = (H, y) if fitted_on is None else fitted_on
    scatter = np.sum((features - features.mean(0)) ** 2)
    classifier = RidgeClassifier(alpha=1e-3 * scatter / features.shape[1], solver="cholesky").fit(features, labels)
    return {"probe_accuracy": np.mean(classifier.predict(H) == y)}


def alignment(below, above):
    """cos(V^T V, W W^T) of W = below, V = above."""
    A, B = above.T @ above, below @ below.T
    return np.sum(A * B) / np.linalg.norm(A) / np.linalg.norm(B)


def classes(H, y, W, b):
    """Of each present class: count, intra without self-pairs, variance, norm of the mean, cosine, accuracy."""
    mu, m = means_of(H, y)
    units = (H - H.mean(0)) / np.linalg.norm(H - H.mean(0), axis=1)[:, None]
    chosen = (H @ W.T + b).argmax(1)
    rows = []
    for c in mu:
        own = units[y == c]
        between = [own[i] @ own[j] for i, j in itertools.permutations(range(len(own)), 2)]
        rows.append(
            {
                "class": c,
                "count": len(own),
                "intra": np.mean(between) if between else NAN,
                "variance": np.mean([np.sum((h - mu[c]) ** 2) for h in H[y == c]]),
                "mean_norm": np.linalg.norm(m[c]),
                "nc3_cosine": angle(W[c] - W.mean(0), m[c]),
                "accuracy": np.mean(chosen[y == c] == c),
            }
        )
    return rows


def pairs(H, y):
    """Of each pair of present classes: inter, distance, CDNV."""
    mu, _ = means_of(H, y)
    units = (H - H.mean(0)) / np.linalg.norm(H - H.mean(0), axis=1)[:, None]
    spread = {c: np.mean([np.sum((h - mu[c]) ** 2) for h in H[y == c]]) for c in mu}
    return [
        {
            "class": c,
            "other": k,
            "inter": np.mean([u @ v for u in units[y == c] for v in units[y == k]]),
            "distance": np.linalg.norm(mu[c] - mu[k]),
            "cdnv": (spread[c] + spread[k]) / (2 * np.sum((mu[c] - mu[k]) ** 2)),
        }
        for c, k in itertools.combinations(mu, 2)
    ]
