#!/usr/bin/env bash
# Set up, train SAM-SPL-T from random weights on generated images, test it: minutes on two cores, nothing to download.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
folder=${1:-checkpoints/demo}
started=$SECONDS
set=(dataset=synthetic dataset.image_size=96 "dataset.synthetic={train: 240, val: 0, test: 80, areas: [4, 60], scr: [6, 16], most_targets: 3, empty: 0.05}")
.venv/bin/python training.py "${set[@]}" recipe=scratch trainer.augment=resize_flip trainer.epochs=3 trainer.batch_size=5 save_dir="$folder" overwrite=true
.venv/bin/python testing.py "${set[@]}" weights="$folder" overlays=12
pictures=("$folder"/test-*/overlays/)
echo "demo: $((SECONDS - started)) s. Pictures: ${pictures[*]}  Curves: $folder/curves.png"
