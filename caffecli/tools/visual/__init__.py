"""Pictures of what a net has learnt. Each way of looking is a function that returns arrays; ``draw`` makes a PNG of them."""
