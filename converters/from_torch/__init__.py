"""PyTorch programs into Caffe's nets: the file's reader, and rules from ATen's operations to layers."""
