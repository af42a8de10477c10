#!/usr/bin/env bash
# Set up .venv, then run homework 4: the MB experiment, and the MBPO experiment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# One line per experiment variable: name, default, flag of scripts/run_hw4_mb.py.
readonly MB_VARIABLES="
ENV_NAME              cheetah-cs285-v0 --env_name
EXP_NAME              mb_default       --exp_name
N_ITER                20               --n_iter
ENSEMBLE_SIZE         3                --ensemble_size
MPC_HORIZON           10               --mpc_horizon
MPC_ACTION_SEQUENCES  1000             --mpc_num_action_sequences
MPC_SAMPLING          random           --mpc_action_sampling_strategy
CEM_ITERATIONS        4                --cem_iterations
CEM_NUM_ELITES        5                --cem_num_elites
CEM_ALPHA             1                --cem_alpha
ADD_SL_NOISE          0                --add_sl_noise
BATCH_SIZE            8000             --batch_size
BATCH_SIZE_INITIAL    20000            --batch_size_initial
TRAIN_BATCH_SIZE      512              --train_batch_size
EVAL_BATCH_SIZE       400              --eval_batch_size
LEARNING_RATE         0.001            --learning_rate
N_LAYERS              2                --n_layers
HIDDEN_SIZE           250              --size
NUM_AGENT_TRAIN_STEPS 1000             --num_agent_train_steps_per_iter
SEED                  1                --seed
EXTRA_FLAGS"
# What the MBPO stage will read; named here so that no run_hw4.sh of today calls them typos.
readonly MBPO_ONLY="MBPO_ROLLOUT_LENGTH SAC_N_ITER SAC_TRAIN_BATCH_SIZE SAC_BATCH_SIZE SAC_DISCOUNT
SAC_INIT_TEMPERATURE SAC_LEARNING_RATE SAC_N_LAYERS SAC_HIDDEN_SIZE SAC_NUM_AGENT_TRAIN_STEPS
SAC_NUM_CRITIC_UPDATES SAC_NUM_ACTOR_UPDATES SAC_ACTOR_UPDATE_FREQ SAC_CRITIC_TARGET_UPDATE_FREQ"

usage() {
  cat <<'TEXT'
Usage: [VARIABLE=value ...] ./run_hw4.sh [--quick] [--help]

Creates or reuses .venv/, installs requirements.txt and cs285, then runs the MB experiment.

  --quick   a demonstration on the obstacles task, about two minutes with two cores
  --help    this text

General variables (default):
  RUN_MB (1)  RUN_MBPO (1)  0 leaves that stage out
  SKIP_INSTALL (0)          1 installs nothing; PYTHON_BIN, if set, is then used as it is
  PYTHON_BIN (python3)      makes .venv
  MUJOCO_GL (egl on Linux)  how MuJoCo draws videos

The variables MBPO_* and SAC_* are accepted, for the MBPO stage of the next version.

MB experiment (default), each the flag of scripts/run_hw4_mb.py in the last column:
TEXT
  while read -r name default flag; do
    [[ -z $name ]] || printf '  MB_%-22s %-18s %s\n' "$name" "(${default:-empty})" "${flag:-appended as it is}"
  done <<<"$MB_VARIABLES"
}

fail() {
  echo "run_hw4.sh: error: $*" >&2
  exit 2
}

# Stop at a variable that looks like one of ours and is not.
check_variables() {
  local known=" $(tr '\n' ' ' <<<"$MBPO_ONLY") " name
  while read -r name _; do
    known+="MB_$name MBPO_$name "
  done <<<"$MB_VARIABLES"
  for name in $(compgen -e); do
    case $name in
      MB_* | MBPO_* | SAC_*)
        [[ $known == *" $name "* ]] ||
          fail "unknown variable $name=${!name}; ./run_hw4.sh --help lists the allowed ones" ;;
    esac
  done
  for name in RUN_MB RUN_MBPO SKIP_INSTALL MB_ADD_SL_NOISE MBPO_ADD_SL_NOISE; do
    [[ ${!name:-0} == [01] ]] || fail "$name=${!name}: allowed are 0 and 1"
  done
}

# Create or reuse .venv, and install unless what is there was installed from the same files.
install() {
  if [[ ${SKIP_INSTALL:-0} == 1 ]]; then
    python=.venv/bin/python
    [[ -z ${PYTHON_BIN:-} && -x $python ]] || python=${PYTHON_BIN:-python3}
    return
  fi
  PYTHON_BIN=${PYTHON_BIN:-python3} ./install.sh requirements.txt
  python=.venv/bin/python
}

# run_stage SCRIPT PREFIX FLAGS...: print the command that the variables PREFIX_* make, and run it
run_stage() {
  local script=$1 prefix=$2 name default flag variable value command
  shift 2
  command=("$python" "$script" "$@")
  while read -r name default flag; do
    variable=${prefix}_$name
    value=${!variable:-$default}
    case $name in
      "" | EXTRA_FLAGS) ;;
      ADD_SL_NOISE) [[ $value == 0 ]] || command+=("$flag") ;;
      *) command+=("$flag" "$value") ;;
    esac
  done <<<"$MB_VARIABLES"
  variable=${prefix}_EXTRA_FLAGS
  local -a extra
  read -r -a extra <<<"${!variable:-}"
  command+=(${extra[@]+"${extra[@]}"})
  printf '+'; printf ' %q' "${command[@]}"; printf '\n'
  "${command[@]}"
}

quick=0
for argument in "$@"; do
  case $argument in
    --help | -h) usage; exit 0 ;;
    --quick) quick=1 ;;
    *) fail "unknown argument $argument; allowed are --quick and --help" ;;
  esac
done
check_variables
if [[ $quick == 1 ]]; then
  : "${MB_ENV_NAME=obstacles-cs285-v0}" "${MB_EXP_NAME=quick}" "${MB_N_ITER=2}"
  : "${MB_BATCH_SIZE_INITIAL=2000}" "${MB_BATCH_SIZE=200}" "${MB_NUM_AGENT_TRAIN_STEPS=100}"
  : "${MB_EVAL_BATCH_SIZE=200}" "${MB_MPC_ACTION_SEQUENCES=500}" "${MB_ADD_SL_NOISE=1}"
fi
if [[ $(uname) == Linux ]]; then
  export MUJOCO_GL=${MUJOCO_GL:-egl}
fi

install
if [[ ${RUN_MB:-1} == 1 ]]; then
  run_stage scripts/run_hw4_mb.py MB
fi
if [[ ${RUN_MBPO:-1} == 1 ]]; then
  echo "The MBPO stage is not part of this version yet; the MB stage is all there is."
fi
echo "Plots and logs are in the folder named after 'logging to' above (by default in cs285/data)."
echo "To browse them: pip install tensorboard && tensorboard --logdir cs285/data"
