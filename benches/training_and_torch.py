"""An epoch of the example's network, 784-64-32-10 with Adam and batches of 64, here and in PyTorch, in turns, on one
thread. Needs python3 with torch; run from the root of the repository after `cargo bench --bench distill -- epoch`.
"""

import re
import subprocess
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
SAMPLES, BATCH, ROUNDS = 1437, 64, 5


def ours():
    run = subprocess.run(["cargo", "bench", "--bench", "distill", "--", "epoch"], capture_output=True, text=True, check=True)
    return float(re.search(r"([\d.]+) ms", run.stdout).group(1))


def theirs():
    x, y = torch.rand(SAMPLES, 784), torch.randint(0, 10, (SAMPLES,))
    sizes = [784, 64, 32, 10]
    layers = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    least, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < 3:
        epoch = time.perf_counter()
        order = torch.randperm(SAMPLES)
        for batch in order.split(BATCH):
            adam.zero_grad()
            F.cross_entropy(network(x[batch]), y[batch]).backward()
            adam.step()
        least = min(least, time.perf_counter() - epoch)
    return 1e3 * least


pairs = [(ours(), theirs()) for _ in range(ROUNDS)]
for pair in pairs:
    print("tersor %.3f ms, torch %.3f ms an epoch" % pair)
least = [min(column) for column in zip(*pairs)]
print("least: tersor %.3f ms, torch %.3f ms: tersor takes %.2f of torch's time" % (*least, least[0] / least[1]))
