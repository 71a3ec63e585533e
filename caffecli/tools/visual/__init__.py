"""What a net has learnt, for ``visualize``: each way of looking is a function of ``look`` that returns arrays."""
