"""Flatness where people already train: during training, and as a backend of laplace-torch.

`monitor` measures a network every so many steps on one probe batch, and hands the figures to
`logs`: CSV files, TensorBoard, any function. `lightning` and `transformers` call the monitor from
the training loops of these packages. `laplace` gives laplace-torch the diagonal of the Gauss-Newton
matrix. Each of the last three needs the package that it is named after, and is imported by itself;
the extra ``integrations`` installs all of them.
"""

from flattest.integrations.monitor import FlatnessMonitor, Reading

__all__ = ["FlatnessMonitor", "Reading"]
