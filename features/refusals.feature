Feature: Bad input is refused with a reason
  A refusal has a stable code for programs and says to people what to do. It changes nothing.

  Background:
    Given a running server

  Scenario Outline: <what>
    When I push to "mail" the text <text>
    Then the call is refused with status <status> and the code "<code>"
    And the refusal says "<says>"
    And there is no queue "mail"

    Examples:
      | what                      | text                              | status | code          | says     |
      | text that is not JSON     | {"body":1,,}                      | 400    | invalid_json  | JSON     |
      | an option that is unknown | {"body":1,"priorty":5}            | 400    | unknown_field | priority |
      | a priority out of range   | {"body":1,"priority":256}         | 422    | invalid       | priority |
      | a time that is none       | {"body":1,"run_at":"tomorrow"}    | 422    | invalid       | run_at   |
      | no attempts               | {"body":1,"attempts":0}           | 422    | invalid       | attempts |

  Scenario: A body that is too large
    When I push a body of 1048577 bytes to "mail"
    Then the call is refused with status 413 and the code "body_too_large"

  Scenario: A job that is not there
    When I ask for the job "nobody" in "mail"
    Then the call is refused with status 404 and the code "unknown_job"

  Scenario: A command that is mistyped
    When I run "millpond psh mail 1"
    Then the command fails with exit code 2
    And it prints "push"
