#!/usr/bin/env bash
# What results/ reports, some of it shortened: runs it, and exports what it measured to results/<group>/.
# Started again, it skips what is exported, resumes what is half done, and begins the rest.
#   results/experiments.sh ['NAME_PATTERN']     SEEDS="1 2 3"  DATA_DIR=cs285/data  PYTHON_BIN=.venv/bin/python
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${SEEDS:-1 2 3}
data=${DATA_DIR:-cs285/data}
python=${PYTHON_BIN:-.venv/bin/python}
only=${1:-*}

# run AGENT NAME FLAGS...: one experiment of the mb or mbpo agent, for each seed
run() {
  local script=scripts/run_hw4_$1.py name=$2 seed target log
  shift 2
  [[ $name == $only ]] || return 0  # a pattern: not quoted
  for seed in $seeds; do
    target=results/${name%%_*}/${name}_seed$seed
    [[ -e $target.json ]] && continue
    log=$(compgen -G "$data/hw4_${name}_seed${seed}_*" | head -n 1 || true)
    if [[ -n $log ]]; then
      "$python" "$script" --resume "$log"
    else
      "$python" "$script" "$@" --exp_name "${name}_seed$seed" --seed "$seed" \
        --video_log_freq -1 --data_dir "$data"
      log=$(compgen -G "$data/hw4_${name}_seed${seed}_*" | head -n 1)
    fi
    "$python" scripts/export_run.py "$log" "$target"
  done
}

cheetah=(--env_name cheetah-cs285-v0 --add_sl_noise)
obstacles=(--env_name obstacles-cs285-v0 --add_sl_noise)
reacher=(--env_name reacher-cs285-v0 --add_sl_noise)
q1=("${cheetah[@]}" --n_iter 1 --batch_size_initial 20000 --scalar_log_freq -1)
q2=("${obstacles[@]}" --num_agent_train_steps_per_iter 20 --batch_size_initial 5000
  --batch_size 1000 --mpc_horizon 10)
q5=("${cheetah[@]}" --mpc_horizon 15 --num_agent_train_steps_per_iter 1500
  --batch_size_initial 5000)

run mb q1_cheetah_n500_arch1x32 "${q1[@]}" --num_agent_train_steps_per_iter 500 --n_layers 1 --size 32
run mb q1_cheetah_n5_arch2x250 "${q1[@]}" --num_agent_train_steps_per_iter 5 --n_layers 2 --size 250
run mb q1_cheetah_n500_arch2x250 "${q1[@]}" --num_agent_train_steps_per_iter 500 --n_layers 2 --size 250
run mb q2_obstacles_singleiteration "${q2[@]}" --n_iter 1
run mb q3_obstacles "${q2[@]}" --n_iter 12

# Shortened: episodes of 200 env steps instead of 500, 400 planned ones per iteration instead of 5000,
# and 2 iterations instead of 5.
q5+=(--ep_len 200 --batch_size 400 --n_iter 2)
run mb q5_cheetah_random_short "${q5[@]}" --mpc_action_sampling_strategy random
run mb q5_cheetah_cem_4_short "${q5[@]}" --mpc_action_sampling_strategy cem --cem_iterations 4
# Shortened: 4 iterations instead of 15, and of 1000 env steps instead of 5000.
run mb q3_reacher_short "${reacher[@]}" --mpc_horizon 10 --num_agent_train_steps_per_iter 1000 \
  --batch_size_initial 5000 --batch_size 1000 --n_iter 4
# Shortened: 4 iterations instead of 20, and of 1000 env steps instead of 5000.
run mb q3_cheetah_short "${cheetah[@]}" --mpc_horizon 15 --num_agent_train_steps_per_iter 1500 \
  --batch_size_initial 5000 --batch_size 1000 --n_iter 4

q6=("${cheetah[@]}" --num_agent_train_steps_per_iter 1500 --batch_size_initial 5000
  --batch_size 5000 --n_iter 10 --sac_discount 0.99 --sac_n_layers 2 --sac_size 256
  --sac_batch_size 1500 --sac_learning_rate 3e-4 --sac_init_temperature 0.1)
run mbpo q6_cheetah_rlenl0 "${q6[@]}" --sac_n_iter 1000 --mbpo_rollout_length 0
run mbpo q6_cheetah_rlen1 "${q6[@]}" --sac_n_iter 5000 --mbpo_rollout_length 1
run mbpo q6_cheetah_rlen10 "${q6[@]}" --sac_n_iter 5000 --mbpo_rollout_length 10
# The same for its time: one seed, and nothing beside it.
seeds=1 run mbpo q6_cheetah_rlen10_alone "${q6[@]}" --sac_n_iter 5000 --mbpo_rollout_length 10

# SAC alone, no model. HalfCheetah as results/sb3_sac.py runs Stable-Baselines3: an update per env step.
sac=(--mbpo_rollout_length 0 --num_agent_train_steps_per_iter 0 --sac_obs_scaling none)
run mbpo sac_pendulum "${sac[@]}" --env_name Pendulum-v1 --batch_size_initial 200 --batch_size 200 \
  --n_iter 50 --sac_n_iter 200 --sac_learning_rate 1e-3 --eval_batch_size 1000
run mbpo sac_halfcheetah "${sac[@]}" --env_name HalfCheetah-v5 --continue_episodes \
  --batch_size_initial 5000 --batch_size 1 --n_iter 15001 --sac_n_iter 1 --sac_size 256 \
  --scalar_log_freq 1000 --eval_batch_size 2000 --checkpoint_freq 2000
