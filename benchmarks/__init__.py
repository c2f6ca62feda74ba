"""What Switchyard costs, each figure beside a baseline of the same run. `make bench`, or `make bench ONLY=pipeline`."""
