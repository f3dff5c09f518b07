"""The batched product of matrices is one product, mapped.

Question: is a batch of products anything but one product, mapped over the batch?
Command:  python -m experiments.batched_product
Time:     4 seconds of CPU time.
Result:   no. `vmap` of `@`, `@` and einsum agree bit for bit, torch.bmm to 5e-7. `vmap` of attention and attention on
          the batch agree bit for bit too.
"""

from experiments.batched_product.experiment import Config, Products, run

__all__ = ["Config", "Products", "run"]
