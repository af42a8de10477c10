#!/usr/bin/env bash
# Set up .venv, then run homework 4: the MB experiment, then the MBPO experiment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# One line per variable of both experiments: name without the prefix MB_ or MBPO_, default, flag of
# both scripts.
readonly VARIABLES="
ENV_NAME              cheetah-cs285-v0 --env_name
EXP_NAME              PREFIX_default   --exp_name
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
# Variables of the MBPO experiment only: full name, default, flag of scripts/run_hw4_mbpo.py.
readonly MBPO_VARIABLES="
MBPO_ROLLOUT_LENGTH           1    --mbpo_rollout_length
SAC_N_ITER                    200  --sac_n_iter
SAC_TRAIN_BATCH_SIZE          256  --sac_train_batch_size
SAC_BATCH_SIZE                1000 --sac_batch_size
SAC_DISCOUNT                  0.99 --sac_discount
SAC_INIT_TEMPERATURE          1.0  --sac_init_temperature
SAC_LEARNING_RATE             3e-4 --sac_learning_rate
SAC_N_LAYERS                  2    --sac_n_layers
SAC_HIDDEN_SIZE               64   --sac_size
SAC_NUM_AGENT_TRAIN_STEPS     1    --sac_num_agent_train_steps_per_iter
SAC_NUM_CRITIC_UPDATES        1    --sac_num_critic_updates_per_agent_update
SAC_NUM_ACTOR_UPDATES         1    --sac_num_actor_updates_per_agent_update
SAC_ACTOR_UPDATE_FREQ         1    --sac_actor_update_frequency
SAC_CRITIC_TARGET_UPDATE_FREQ 1    --sac_critic_target_update_frequency"

# variables_of PREFIX: print the lines "full name, default, flag" of an experiment, MB or MBPO.
variables_of() {
  local name default flag lower
  lower=$(tr '[:upper:]' '[:lower:]' <<<"$1")
  while read -r name default flag; do
    [[ -z $name ]] || echo "$1_$name ${default/PREFIX/$lower} $flag"
  done <<<"$VARIABLES"
  [[ $1 == MB ]] || tail -n +2 <<<"$MBPO_VARIABLES"
}

usage() {
  cat <<'TEXT'
Usage: [VARIABLE=value ...] ./run_hw4.sh [--quick] [--help]

Creates or reuses .venv/, installs requirements.txt and cs285, then runs the MB experiment and the
MBPO experiment.

  --quick   run a short demonstration of both experiments on the obstacles task (about three
            minutes on two cores)
  --help    print this text

General variables (default):
  RUN_MB (1)  RUN_MBPO (1)  0: skip the experiment
  SKIP_INSTALL (0)          1: install nothing, and use PYTHON_BIN to run the experiments (if
                            PYTHON_BIN is not set: the Python in .venv, if there is one)
  PYTHON_BIN (python3)      the Python that creates .venv
  MUJOCO_GL (egl on Linux)  OpenGL backend of MuJoCo for videos

Each variable of an experiment sets a flag of scripts/run_hw4_mb.py or scripts/run_hw4_mbpo.py.
If SAC_BATCH_SIZE is set and MBPO_BATCH_SIZE is not, each iteration collects SAC_BATCH_SIZE env
steps. run_hw4.sh passes all of these flags, so a --preset in EXTRA_FLAGS only sets the other flags.
TEXT
  local prefix name default flag
  for prefix in MB MBPO; do
    printf '\n%s experiment: variable, default, flag\n' "$prefix"
    while read -r name default flag; do
      flag=${flag:-more flags, separated by spaces}
      printf '  %-29s %-18s %s\n' "$name" "(${default:-empty})" "$flag"
    done < <(variables_of "$prefix")
  done
}

fail() {
  echo "run_hw4.sh: error: ${*//$'\n'/ }" >&2
  exit 2
}

# Stop if a variable with one of our prefixes is unknown, or if a value is invalid.
check_variables() {
  local known=" " name default
  for name in RUN_MB RUN_MBPO SKIP_INSTALL MB_ADD_SL_NOISE MBPO_ADD_SL_NOISE; do
    [[ ${!name:-0} == [01] ]] || fail "$name=${!name}: must be 0 or 1"
  done
  while read -r name default _; do
    known+="$name "
    [[ ! $default =~ ^[0-9.e-]+$ || ${!name:-0} =~ ^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$ ]] ||
      fail "$name=${!name}: must be a number"
  done < <(variables_of MB && variables_of MBPO)
  for name in $(compgen -e); do
    case $name in
      MB_* | MBPO_* | SAC_*)
        [[ $known == *" $name "* ]] ||
          fail "$name=${!name}: must be a variable that ./run_hw4.sh --help lists" ;;
    esac
  done
}

# Create or reuse .venv and install the requirements. Set `python` to the Python of the experiments.
install() {
  if [[ ${SKIP_INSTALL:-0} == 1 ]]; then
    python=.venv/bin/python
    [[ -z ${PYTHON_BIN:-} && -x $python ]] || python=${PYTHON_BIN:-python3}
    [[ -x $(command -v "$python") ]] || fail "PYTHON_BIN=$python: must be an executable Python"
    return
  fi
  PYTHON_BIN=${PYTHON_BIN:-python3} ./install.sh requirements.txt
  python=.venv/bin/python
}

# make_command SCRIPT PREFIX: set `command` to the command of an experiment.
make_command() {
  local script=$1 prefix=$2 name default flag value
  local -a extra=()
  command=("$python" "$script")
  while read -r name default flag; do
    value=${!name:-$default}
    case $name in
      *_EXTRA_FLAGS) read -r -d '' -a extra <<<"${!name:-}" || true ;;
      *_ADD_SL_NOISE) [[ $value == 0 ]] || command+=("$flag") ;;
      # Without --batch_size the script collects SAC_BATCH_SIZE env steps per iteration.
      MBPO_BATCH_SIZE)
        [[ -z ${!name:-} && -n ${SAC_BATCH_SIZE:-} ]] || command+=("$flag" "$value") ;;
      *) command+=("$flag" "$value") ;;
    esac
  done < <(variables_of "$prefix")
  command+=(${extra[@]+"${extra[@]}"})
}

# run_stage SCRIPT PREFIX: print and run the command of an experiment.
run_stage() {
  make_command "$@"
  printf '+'; printf ' %q' "${command[@]}"; printf '\n'
  "${command[@]}"
}

quick=0
for argument in "$@"; do
  case $argument in
    --help | -h) usage; exit 0 ;;
    --quick) quick=1 ;;
    *) fail "$argument: unknown argument; must be --quick or --help" ;;
  esac
done
check_variables
if [[ $quick == 1 ]]; then
  : "${MB_ENV_NAME=obstacles-cs285-v0}" "${MB_EXP_NAME=quick}" "${MB_N_ITER=2}"
  : "${MB_BATCH_SIZE_INITIAL=2000}" "${MB_BATCH_SIZE=200}" "${MB_NUM_AGENT_TRAIN_STEPS=100}"
  : "${MB_EVAL_BATCH_SIZE=200}" "${MB_MPC_ACTION_SEQUENCES=500}" "${MB_ADD_SL_NOISE=1}"
  : "${MBPO_ENV_NAME=obstacles-cs285-v0}" "${MBPO_EXP_NAME=quick}" "${MBPO_N_ITER=6}"
  : "${MBPO_BATCH_SIZE_INITIAL=2000}" "${MBPO_BATCH_SIZE=200}" "${MBPO_NUM_AGENT_TRAIN_STEPS=100}"
  : "${MBPO_EVAL_BATCH_SIZE=200}" "${MBPO_ADD_SL_NOISE=1}" "${MBPO_ROLLOUT_LENGTH=5}"
  : "${SAC_N_ITER=500}"
fi
if [[ $(uname) == Linux ]]; then
  export MUJOCO_GL=${MUJOCO_GL:-egl}
fi

install
if [[ ${RUN_MB:-1} == 1 && ${RUN_MBPO:-1} == 1 ]]; then
  # Check the flags of the MBPO experiment now, because it may start hours later.
  make_command scripts/run_hw4_mbpo.py MBPO
  # A run that EXTRA_FLAGS resume has its own flags.
  [[ " ${command[*]}" == *" --resume"* ]] || "${command[@]}" --dry_run >/dev/null
fi
if [[ ${RUN_MB:-1} == 1 ]]; then
  run_stage scripts/run_hw4_mb.py MB
fi
if [[ ${RUN_MBPO:-1} == 1 ]]; then
  run_stage scripts/run_hw4_mbpo.py MBPO
fi
echo "Plots and logs are in the folders printed after 'logging to' (default: in cs285/data)."
echo "To view them: $python -m pip install -e '.[tensorboard]' &&" \
  "$python -m tensorboard.main --logdir cs285/data"
