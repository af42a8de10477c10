#!/usr/bin/env bash
# Questions 1, 2, 3 and 5, some of them shortened, and what they measured, into results/<question>/.
# Started again, it skips what is exported, resumes what is half done, and begins the rest.
#   results/mb_experiments.sh [NAME_PREFIX]     SEEDS="1 2 3"  DATA_DIR=cs285/data  PYTHON_BIN=.venv/bin/python
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${SEEDS:-1 2 3}
data=${DATA_DIR:-cs285/data}
python=${PYTHON_BIN:-.venv/bin/python}
only=${1:-}

# run NAME FLAGS...: one experiment, for each seed
run() {
  local name=$1 seed target log
  shift
  [[ $name == "$only"* ]] || return 0
  for seed in $seeds; do
    target=results/${name%%_*}/${name}_seed$seed
    [[ -e $target.json ]] && continue
    log=$(compgen -G "$data/hw4_${name}_seed${seed}_*" | head -n 1 || true)
    if [[ -n $log ]]; then
      "$python" scripts/run_hw4_mb.py --resume "$log"
    else
      "$python" scripts/run_hw4_mb.py "$@" --exp_name "${name}_seed$seed" --seed "$seed" \
        --add_sl_noise --video_log_freq -1 --data_dir "$data"
      log=$(compgen -G "$data/hw4_${name}_seed${seed}_*" | head -n 1)
    fi
    "$python" scripts/export_run.py "$log" "$target"
  done
}

cheetah=(--env_name cheetah-cs285-v0)
obstacles=(--env_name obstacles-cs285-v0)
reacher=(--env_name reacher-cs285-v0)
q1=("${cheetah[@]}" --n_iter 1 --batch_size_initial 20000 --scalar_log_freq -1)
q2=("${obstacles[@]}" --num_agent_train_steps_per_iter 20 --batch_size_initial 5000
  --batch_size 1000 --mpc_horizon 10)
q5=("${cheetah[@]}" --mpc_horizon 15 --num_agent_train_steps_per_iter 1500
  --batch_size_initial 5000)

run q1_cheetah_n500_arch1x32 "${q1[@]}" --num_agent_train_steps_per_iter 500 --n_layers 1 --size 32
run q1_cheetah_n5_arch2x250 "${q1[@]}" --num_agent_train_steps_per_iter 5 --n_layers 2 --size 250
run q1_cheetah_n500_arch2x250 "${q1[@]}" --num_agent_train_steps_per_iter 500 --n_layers 2 --size 250
run q2_obstacles_singleiteration "${q2[@]}" --n_iter 1
run q3_obstacles "${q2[@]}" --n_iter 12

# Shortened: episodes of 200 env steps instead of 500, 400 planned ones per iteration instead of 5000,
# and 2 iterations instead of 5.
q5+=(--ep_len 200 --batch_size 400 --n_iter 2)
run q5_cheetah_random_short "${q5[@]}" --mpc_action_sampling_strategy random
run q5_cheetah_cem_4_short "${q5[@]}" --mpc_action_sampling_strategy cem --cem_iterations 4
# Shortened: 4 iterations instead of 15, and of 1000 env steps instead of 5000.
run q3_reacher_short "${reacher[@]}" --mpc_horizon 10 --num_agent_train_steps_per_iter 1000 \
  --batch_size_initial 5000 --batch_size 1000 --n_iter 4
# Shortened: 4 iterations instead of 20, and of 1000 env steps instead of 5000.
run q3_cheetah_short "${cheetah[@]}" --mpc_horizon 15 --num_agent_train_steps_per_iter 1500 \
  --batch_size_initial 5000 --batch_size 1000 --n_iter 4
