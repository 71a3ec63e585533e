"""What a net has learnt, for ``visualize``: each method is a function of ``methods`` that returns arrays."""
